"""What reading an export back tells: how far its distributions are from the folder's that it was made from.

Divergences are of the distribution of the next token, folder || export, in nats, over one built-in text. Knows no
format.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TEXT = (
    "The capital of France is Paris, and that of Italy is Rome. Water boils at 100 degrees, and freezes at 0. "
    "Once upon a time there was a small village by the sea, where an old fisherman told stories to the children."
)
SAMPLE = "Hello world, 1234567 don't über 你好，世界！ 😀👩‍🚀\n\n  x\t3.14\n"
"""What tokenizers differ in: words, digits, apostrophes, Chinese, emoji, runs of spaces, newlines."""
ANSWER = 16
"""Tokens of an answer."""
COUNTS = 1e-4
"""Of a token's probability; logits of less likely ones say nothing of an answer."""


@dataclass(frozen=True)
class Kld:
    """A KL divergence over the tokens of a text, in nats."""

    mean: float
    largest: float


@dataclass(frozen=True)
class InLlamaCpp:
    """What llama.cpp makes of the file."""

    kld: Kld
    difference: float
    """The largest between two log probabilities of tokens as likely as :data:`COUNTS`."""
    has_same_tokens: bool
    """Whether it tokenizes :data:`SAMPLE` as the folder's tokenizer does."""


@dataclass(frozen=True)
class Verified:
    """What was found; ``llama_cpp`` is None where none was there to be asked."""

    tensors: int
    """That are the folder's, byte for byte: all."""
    tokens: int
    reader: Kld
    difference: float
    """The largest between two logits, the folder's and the file's as the studio reads it."""
    answer: str
    """How the file goes on after the text: in llama.cpp where it is, else as the studio reads it."""
    llama_cpp: InLlamaCpp | None


def kld(logits: Tensor, other: Tensor) -> Kld:
    """Return how far log probabilities are from the distributions that logits give, both [tokens, vocabulary]."""
    ours = logits.double().log_softmax(-1)
    each = (ours.exp() * (ours - other.double().clamp_min(-100))).sum(-1)
    return Kld(float(each.mean()), float(each.max()))


def difference(logits: Tensor, other: Tensor) -> float:
    """Return the largest difference of log probabilities of tokens that count, both [tokens, vocabulary]."""
    ours = logits.double().log_softmax(-1)
    counts = ours.exp() >= COUNTS
    return float((ours - other.double().clamp_min(-100))[counts].abs().max())


@torch.inference_mode()
def logits_of(model: torch.nn.Module, ids: Sequence[int]) -> Tensor:
    found: Tensor = model(torch.tensor([list(ids)], dtype=torch.int64)).logits
    return found[0].float()


def answer_of(model: torch.nn.Module, ids: Sequence[int]) -> list[int]:
    """Return the likeliest tokens after those given, one after the other."""
    found: list[int] = []
    for _ in range(ANSWER):
        found.append(int(logits_of(model, [*ids, *found])[-1].argmax()))
    return found
