"""Multiple-choice questions, and how many answers change. Knows nothing of how a model runs.

A model's answer is the option it holds likeliest, by the mean log-likelihood of the option's tokens after the question.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from studio.checkpoint import Checkpoint
from studio.model import load_tokenizer
from studio.texts import ASSETS, token_ids

LANGUAGES = ("en", "zh")
BATCH = 32
"""Sequences run at once."""


@dataclass(frozen=True)
class Question:
    """``Question("The capital of France is", ("Paris", "Rome", "Berlin", "Madrid"), 0)``."""

    text: str
    options: tuple[str, ...]
    answer: int
    """The right option."""
    language: str = "en"


@dataclass(frozen=True)
class Flips:
    """Answers of the other model against the original's."""

    questions: int
    flipped: int
    """Answers that are not the original's, whether right or wrong."""
    right: int
    """Right answers of the other model."""
    original_right: int


@cache
def questions() -> tuple[Question, ...]:
    """Return the built-in questions, English and Chinese."""
    found = []
    for language in LANGUAGES:
        entries = tomllib.loads((ASSETS / f"questions-{language}.toml").read_text(encoding="utf-8"))["questions"]
        for text, right, *wrong in entries:
            # The right option stands at a place that the question's own length gives, not always first.
            place = len(text) % (len(wrong) + 1)
            found.append(Question(text, (*wrong[:place], right, *wrong[place:]), place, language))
    return tuple(found)


class Options:
    """Every option of every question as tokens, in the order of the questions."""

    def __init__(self, asked: tuple[Question, ...], sequences: list[tuple[Tensor, int]]) -> None:
        """``sequences``: the tokens of question and option, and where the option begins."""
        self._asked = asked
        self._sequences = sequences

    @property
    def count(self) -> int:
        return len(self._asked)

    def batches(self) -> Iterator[Tensor]:
        """Yield token ids [B, T], shorter ones filled up at the end, which no causal model looks at before it."""
        for lot in self._lots():
            yield torch.nn.utils.rnn.pad_sequence([ids for ids, _ in lot], batch_first=True)

    def likelihoods(self, batch: Tensor, logits: Tensor, index: int) -> Tensor:
        """Return the mean log-likelihood of the options [B] of batch number ``index`` from its logits [B, T, V]."""
        found = []
        for row, (ids, start) in enumerate(self._lots()[index]):
            log = log_softmax(logits[row, start - 1 : len(ids) - 1].float(), -1)
            found.append(log.gather(1, batch[row, start : len(ids), None]).mean())
        return torch.stack(found)

    def flips(self, original: Tensor, other: Tensor) -> Flips:
        """Return how the answers compare, from the likelihoods of all options of both."""
        sizes = [len(question.options) for question in self._asked]
        answers = [[int(part.argmax()) for part in torch.split(found, sizes)] for found in (original, other)]
        rights = [question.answer for question in self._asked]
        pairs = list(zip(*answers, strict=True))
        return Flips(
            questions=len(pairs),
            flipped=sum(a != b for a, b in pairs),
            right=sum(b == right for (_, b), right in zip(pairs, rights, strict=True)),
            original_right=sum(a == right for (a, _), right in zip(pairs, rights, strict=True)),
        )

    def _lots(self) -> list[list[tuple[Tensor, int]]]:
        return [self._sequences[start : start + BATCH] for start in range(0, len(self._sequences), BATCH)]


def options(checkpoint: Checkpoint, asked: tuple[Question, ...]) -> Options:
    """Return the options as tokens of the model. Raises CheckpointError without a tokenizer."""
    if not asked:
        return Options((), [])
    tokenizer = load_tokenizer(checkpoint.path)
    sequences = []
    for question in asked:
        stem = token_ids(checkpoint, question.text, tokenizer)
        for option in question.options:
            joined = f"{question.text}{'' if question.language == 'zh' else ' '}{option}"
            ids = token_ids(checkpoint, joined, tokenizer)
            # Tokens may span the seam: what question and whole share is the question's.
            same = int((stem[: len(ids)] == ids[: len(stem)]).long().cumprod(0).sum())
            sequences.append((ids, max(1, min(same, len(ids) - 1))))
    return Options(asked, sequences)
