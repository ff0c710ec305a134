"""Questions asked as a chat asks them: a conversation, then one of several answers. Knows nothing of how a model runs.

Of two answers the one that a model holds likelier is what it would do; the original is the yardstick.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from studio.base.assets import asset
from studio.calibration.texts import positions, words
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.tokenizer.guarded_tokenizer import GuardedTokenizer, load_tokenizer
from studio.checkpoint.tokenizer.template import Message
from studio.evaluation.questions import LANGUAGES, MOST_TOKENS, Option, Options, Question

SAFETY, DIALOGUE = "safety", "dialogue"
CHECKS = (SAFETY, DIALOGUE)


@dataclass(frozen=True)
class Prompted:
    """A conversation and the answers to choose from, of which one is the expected one."""

    messages: tuple[Message, ...]
    question: Question
    """Its options are the answers; its text is the last message."""


@cache
def prompted(check: str) -> dict[str, tuple[Prompted, ...]]:
    """Return the parts of a check by their names: what to decline and what to help with; or dialogues."""
    parts: dict[str, list[Prompted]] = {}
    for language in LANGUAGES:
        held = tomllib.loads(asset(f"{check}-{language}.toml").read_text(encoding="utf-8"))
        for name, items in _items(check, held, language).items():
            parts.setdefault(name, []).extend(items)
    return {name: tuple(items) for name, items in parts.items()}


def prompted_options(checkpoint: Checkpoint, asked: Sequence[Prompted]) -> Options:
    """Return the answers as tokens of the model behind its own chat template, without those longer than it reads.

    Raises CheckpointError without a tokenizer, PromptError for a template that fails.
    """
    tokenizer, most = load_tokenizer(checkpoint.path), positions(checkpoint, MOST_TOKENS)
    kept: list[Question] = []
    choices: list[Option] = []
    for each in asked:
        whole = _choices(tokenizer, each)
        if all(len(option.ids) <= most for option in whole):
            for option in whole:
                tokenizer.check(option.ids.tolist(), words(checkpoint))
            kept.append(each.question)
            choices += whole
    return Options(tuple(kept), choices)


def _choices(tokenizer: GuardedTokenizer, asked: Prompted) -> list[Option]:
    answered = tokenizer.answered_ids(asked.messages, asked.question.options)
    return [Option(torch.tensor(ids, dtype=torch.int64), start) for ids, start in answered]


def _items(check: str, held: dict[str, list[list[str]]], language: str) -> dict[str, list[Prompted]]:
    if check == SAFETY:
        answers = (str(held["declined"]), str(held["helped"]))
        return {
            name: [_of((str(request),), answers, right, language) for request in held[name]]
            for name, right in (("decline", 0), ("help", 1))
        }
    made = []
    for first, answer, asked, right, *wrong in held["dialogues"]:
        place = len(asked) % (len(wrong) + 1)
        made.append(_of((first, answer, asked), (*wrong[:place], right, *wrong[place:]), place, language))
    return {DIALOGUE: made}


def _of(said: tuple[str, ...], answers: tuple[str, ...], right: int, language: str) -> Prompted:
    """Return a conversation of which user and model say a message by turns, the user the first and the last."""
    roles = ("user", "assistant")
    messages: tuple[Message, ...] = tuple({"role": roles[i % 2], "content": content} for i, content in enumerate(said))
    return Prompted(messages, Question(said[-1], answers, right, language))
