"""Whether a GGUF file gives the numbers of the folder it was made from: read back here, and asked of llama.cpp.

Divergences are of the distribution of the next token, folder || file, in nats, over one built-in text. Knows nothing of
how the file was written.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from studio.base.progress import Progress
from studio.checkpoint.checkpoint import read_json
from studio.checkpoint.config import check_can_chat, load_config
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.gguf.source import prepare
from studio.export.gguf import llama_cpp
from studio.export.gguf.llama_cpp import Question
from studio.runtime.model import load_compressed, load_original, load_tokenizer

TEXT = (
    "The capital of France is Paris, and that of Italy is Rome. Water boils at 100 degrees, and freezes at 0. "
    "Once upon a time there was a small village by the sea, where an old fisherman told stories to the children."
)
SAMPLE = "Hello world, 1234567 don't über 你好，世界！ 😀👩‍🚀\n\n  x\t3.14\n"
"""What tokenizers differ in: words, digits, apostrophes, Chinese, emoji, runs of spaces, newlines."""
ANSWER = 16
"""Tokens of an answer."""


@dataclass(frozen=True)
class Kld:
    """A KL divergence over the tokens of a text, in nats."""

    mean: float
    largest: float


@dataclass(frozen=True)
class InLlamaCpp:
    """What llama.cpp makes of the file."""

    kld: Kld
    has_same_tokens: bool
    """Whether it tokenizes :data:`SAMPLE` as the folder's tokenizer does."""
    answer: str
    """How it goes on after the text."""


@dataclass(frozen=True)
class Verified:
    """What was found; ``llama_cpp`` is None where none was there to be asked."""

    tokens: int
    reader: Kld
    difference: float
    """The largest between two logits, the folder's and the file's as the studio reads it."""
    llama_cpp: InLlamaCpp | None


def verified(file: Path, folder: Path) -> Generator[Progress, None, Verified]:
    """Yield steps and return how a file and its folder differ. Raises UserError where one cannot be read."""
    check_can_chat(load_config(read_json(folder / CONFIG)))
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(TEXT)
    checkpoint = yield from prepare(file)
    yield Progress("load")
    ours = _logits(load_compressed(folder), ids)
    read = _logits(load_original(checkpoint), ids)
    engine = llama_cpp.found()
    other = None
    if engine is not None:
        yield Progress("load")
        [reply] = engine.ask(Question(file, ids, [SAMPLE], ANSWER))
        same = reply.tokens[0] == tokenizer.encode(SAMPLE)
        other = InLlamaCpp(kld(ours, reply.probabilities.log()), same, tokenizer.decode(reply.answer))
    return Verified(len(ids), kld(ours, read.log_softmax(-1)), float((ours - read).abs().max()), other)


def kld(logits: Tensor, other: Tensor) -> Kld:
    """Return how far log probabilities are from the distributions that logits give, both [tokens, vocabulary]."""
    ours = logits.double().log_softmax(-1)
    each = (ours.exp() * (ours - other.double().clamp_min(-100))).sum(-1)
    return Kld(float(each.mean()), float(each.max()))


@torch.inference_mode()
def _logits(model: torch.nn.Module, ids: Sequence[int]) -> Tensor:
    found: Tensor = model(torch.tensor([list(ids)], dtype=torch.int64)).logits
    return found[0].float()
