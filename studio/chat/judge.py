"""The original's opinion of an answer it did not give: one pass of it, read from disk block by block, over the text.

For where both models do not fit in memory together. Knows neither conversations nor pages.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from studio.base.progress import Progress
from studio.chat.answer import LoadedModel
from studio.chat.detokenize import Detokenizer
from studio.chat.prompt import prompt_ids
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.tokenizer.guarded_tokenizer import GuardedTokenizer
from studio.checkpoint.tokenizer.template import Message
from studio.runtime.block_model import STAGE, BlockModel
from studio.runtime.decoder import MOST_TOKENS, Decoder, PrefixCache

WIDE = 4
"""Bytes of a weight in fp32, in which the pass is computed where one block, or the head, fits so; else in bf16."""


@dataclass(frozen=True)
class Judged:
    """One token of the answer."""

    place: tuple[int, int]
    """Where it stands in the answer's text."""
    probabilities: tuple[float, float]
    """What the original and the compressed model give it, at temperature 1."""
    best: str
    """What the original would have said instead; empty where it is this token, or the end."""
    is_best: bool
    """Whether the original finds this token the likeliest too."""
    best_probability: float
    kl_divergence: float
    """KL divergence of the compressed model's distribution from the original's, in nats."""


@dataclass(frozen=True)
class ReferenceScore:
    """Every token of an answer as the original sees it."""

    text: str
    tokens: tuple[Judged, ...]

    @property
    def first_difference(self) -> int | None:
        """The first token that the original would not have said, None where it agrees to the end."""
        return next((i for i, token in enumerate(self.tokens) if not token.is_best), None)

    @property
    def kl_divergence(self) -> float:
        """Mean KL divergence a token, in nats."""
        return sum(token.kl_divergence for token in self.tokens) / max(1, len(self.tokens))


def judged(
    checkpoint: Checkpoint,
    decoder: Decoder[Any],
    tokenizer: GuardedTokenizer,
    prompt: Sequence[int],
    said: Sequence[int],
    read: PrefixCache,
    kv_bits: int,
    free: int,
) -> Generator[Progress, None, ReferenceScore]:
    """Yield while the original is read and run over ``prompt`` and the answer ``said``; return its opinion.

    ``decoder`` is the compressed model, ``read`` what it has read of this at ``kv_bits``, ``free`` the bytes the pass
    may take. Closing the generator stops it. Raises CheckpointError when a file is damaged.
    """
    ids = [*prompt, *said]
    dtype = torch.float32 if WIDE * largest_part(checkpoint) < free else torch.bfloat16
    original = BlockModel(checkpoint, dtype)
    hidden = yield from original.run(torch.tensor([ids[:-1]], dtype=torch.int64))
    seen = hidden[:, len(prompt) - 1 :]
    own = _own(decoder, ids[:-1], len(prompt) - 1, read, kv_bits)
    written, text = Detokenizer(tokenizer), ""
    stops = decoder.stop_ids | tokenizer.stop_ids
    tokens: list[Judged] = []
    for logits in original.logits(seen):
        for theirs in logits[0].float():
            ours, token = next(own), said[len(tokens)]
            before, text = len(text), text if token in stops else written(token)
            tokens.append(_judged(theirs, ours, token, (before, len(text)), tokenizer, stops))
        yield Progress(STAGE, len(tokens), len(said), "head")
    return ReferenceScore(text, tuple(tokens))


def judged_answer(
    loaded: LoadedModel,
    checkpoint: Checkpoint,
    messages: Sequence[Message],
    said: Sequence[int],
    read: PrefixCache,
    kv_bits: int,
    free: int,
) -> Generator[Progress, None, ReferenceScore]:
    """Do the same with an answer that ``loaded`` gave to a conversation."""
    prompt = prompt_ids(loaded.tokenizer, messages)
    return judged(checkpoint, loaded.decoder, loaded.tokenizer, prompt, said, read, kv_bits, free)


def largest_part(checkpoint: Checkpoint) -> int:
    """Return the weights of the largest block, or of the head where that is larger."""
    parts: dict[str, int] = {}
    for layer in checkpoint.layers:
        part = layer.name if layer.block is None else str(layer.block)
        parts[part] = parts.get(part, 0) + layer.numel
    return max(parts.values(), default=0)


def _own(
    decoder: Decoder[Any], ids: Sequence[int], start: int, read: PrefixCache, kv_bits: int
) -> Generator[Tensor, None, None]:
    """Yield the compressed model's logits fp32 [V] after each token from ``start`` on."""
    bits = min(decoder.kv_bits, key=lambda each: abs(each - kv_bits))
    kept = read.begin(decoder, ids[: start + 1], len(ids), bits)
    for at in range(kept, start, MOST_TOKENS):
        read.step(decoder, ids[at : min(at + MOST_TOKENS, start)])
    for at in range(start, len(ids), MOST_TOKENS):
        yield from read.forward_all(decoder, ids[at : at + MOST_TOKENS])


def _judged(
    theirs: Tensor, ours: Tensor, token: int, place: tuple[int, int], tokenizer: GuardedTokenizer, stops: frozenset[int]
) -> Judged:
    """Compare the logits fp32 [V] of the original and of the compressed model where ``token`` was said."""
    original, compressed = theirs.log_softmax(-1), ours.log_softmax(-1)
    best = int(original.argmax())
    differences = original.exp() * (original - compressed)
    return Judged(
        place,
        (float(original[token].exp()), float(compressed[token].exp())),
        "" if best == token or best in stops else tokenizer.decode([best]),
        best == token,
        float(original[best].exp()),
        # A token that the original rules out weighs nothing, whatever the other thinks of it.
        max(0.0, float(differences.where(original > -torch.inf, 0).sum(dtype=torch.float64))),
    )
