"""Multiple-choice questions, and how many answers change. Knows nothing of how a model runs.

A model's answer is the option it holds likeliest, by the mean log-likelihood of the option's tokens after the question.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

from torch import Tensor

from studio.base.assets import asset
from studio.calibration.texts import positions, token_ids
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.tokenizer.guarded_tokenizer import load_tokenizer

LANGUAGES = ("en", "zh")
MOST_TOKENS = 1 << 12
"""Of a question with its option; real ones have fifty."""
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
    built_in = []
    for language in LANGUAGES:
        entries = tomllib.loads(asset(f"questions-{language}.toml").read_text(encoding="utf-8"))["questions"]
        for text, right, *wrong in entries:
            # The right option stands at a place that the question's own length gives, not always first.
            place = len(text) % (len(wrong) + 1)
            built_in.append(Question(text, (*wrong[:place], right, *wrong[place:]), place, language))
    return tuple(built_in)


@dataclass(frozen=True)
class Option:
    """A question with one of its options, as tokens int64 [T] of which the option's begin at ``start``."""

    ids: Tensor
    start: int

    def likelihood(self, logs: Tensor) -> float:
        """Return the mean of the option's tokens, from the log-likelihoods [T] of the token that comes after each."""
        return float(logs[self.start - 1 : len(self.ids) - 1].mean())


class Options:
    """Every option of every question, in the order of the questions."""

    def __init__(self, asked: tuple[Question, ...], choices: list[Option]) -> None:
        self._asked = asked
        self.batches = [choices[start : start + BATCH] for start in range(0, len(choices), BATCH)]

    @property
    def count(self) -> int:
        return len(self._asked)

    def flips(self, original: Sequence[float], other: Sequence[float]) -> Flips:
        """Return how the answers compare, from the likelihoods of all options of both."""
        answers: tuple[list[int], list[int]] = ([], [])
        for chosen, own_likelihoods in zip(answers, (original, other), strict=True):
            left = iter(own_likelihoods)
            for question in self._asked:
                own = list(islice(left, len(question.options)))
                chosen.append(own.index(max(own)))
        rights = [question.answer for question in self._asked]
        pairs = list(zip(*answers, strict=True))
        return Flips(
            questions=len(pairs),
            flipped=sum(a != b for a, b in pairs),
            right=sum(b == right for (_, b), right in zip(pairs, rights, strict=True)),
            original_right=sum(a == right for (a, _), right in zip(pairs, rights, strict=True)),
        )


def options(checkpoint: Checkpoint, asked: tuple[Question, ...]) -> Options:
    """Return the options as tokens of the model, without questions that are longer than it can read.

    Raises CheckpointError without a tokenizer.
    """
    if not asked:
        return Options((), [])
    tokenizer, most = load_tokenizer(checkpoint.path), positions(checkpoint, MOST_TOKENS)
    choices: list[Option] = []
    kept: list[Question] = []
    for question in asked:
        whole: list[Option] = []
        stem = token_ids(checkpoint, question.text, tokenizer)
        for option in question.options:
            joined = f"{question.text}{'' if question.language == 'zh' else ' '}{option}"
            ids = token_ids(checkpoint, joined, tokenizer)
            # Tokens may span the seam: what question and whole share is the question's.
            same = int((stem[: len(ids)] == ids[: len(stem)]).long().cumprod(0).sum())
            whole.append(Option(ids, max(1, min(same, len(ids) - 1))))
        if all(len(option.ids) <= most for option in whole):
            kept.append(question)
            choices += whole
    return Options(tuple(kept), choices)
