"""A tiny model that counts what it reads, and messages to it."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from studio.chat.answer import Picked, Reply
from studio.runtime.decoder import Decoder
from studio.runtime.sampling import Sampling

LONG = Sampling(max_new_tokens=12)


BOOK = "one two three " * 60


class Counted:
    """A decoder that counts the tokens it is given."""

    def __init__(self, decoder: Decoder[Any]) -> None:
        self._decoder = decoder
        self.tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def step(self, cache: Any, tokens: Sequence[int]) -> torch.Tensor:
        self.tokens += len(tokens)
        return self._decoder.step(cache, tokens)


def user(*words: str) -> list[dict[str, str]]:
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": word} for i, word in enumerate(words)]


def last(steps: Iterator[Reply]) -> Reply:
    *_, reply = steps
    return reply


def replies(ids: Sequence[int], logits: Sequence[torch.Tensor], words: Sequence[str]) -> list[Reply]:
    """Return an answer as it grows."""
    grown, text = [], ""
    for i, (token, scores, word) in enumerate(zip(ids, logits, words, strict=True)):
        text += word
        grown.append(Reply(text, 5, tokens=i + 1, newest=Picked(token, scores)))
    return grown
