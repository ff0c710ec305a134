"""How far the studio's answers are from transformers', read in several ways. Knows no family by name."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio.checkpoint.checkpoint import Checkpoint
from studio.compression.compress import compress
from studio.export import write_folder
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.runtime.block_model import BlockModel
from studio.runtime.decoder import Decoder
from tests.steps import finish

TOKENS = 200
ODD = (37, 1, 90, 5, 67)
"""Lengths of pieces that no block or chunk of a model divides."""


def some_tokens(vocabulary: int, count: int = TOKENS) -> list[int]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(6, vocabulary, (count,), generator=generator).tolist()


def error(found: Tensor, expected: Tensor) -> float:
    """Return the relative error of centred logits [T, V], of all tokens together."""
    found, expected = (x.double() - x.double().mean(-1, keepdim=True) for x in (found, expected))
    return float((found - expected).norm() / expected.norm())


def middle_error(found: Tensor, expected: Tensor) -> float:
    """Return the same of the token in the middle when sorted by it: a router that flips decides over a few tokens."""
    found, expected = (x.double() - x.double().mean(-1, keepdim=True) for x in (found, expected))
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).median())


def reference(model: Any, tokens: Sequence[int]) -> Tensor:
    """Return the logits [T, V] of transformers' own model."""
    with torch.inference_mode():
        found: Tensor = model(input_ids=torch.tensor([list(tokens)])).logits[0].float()
    return found


def in_pieces(decoder: Decoder[Any], tokens: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """Return the logits [T, V] of a text read in pieces of these lengths, then token by token."""
    cache = decoder.begin(len(tokens))
    found, start = [], 0
    for length in (*lengths, *[1] * (len(tokens) - sum(lengths))):
        found.append(decoder.forward_all(cache, tokens[start : start + length]))
        start += length
    return torch.cat(found)


def beside_each_other(decoder: Decoder[Any], texts: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Tensor]:
    """Return the logits [T, V] of each text, all read in pieces of these lengths, one piece of each in turn."""
    caches = [decoder.begin(len(text)) for text in texts]
    found: list[list[Tensor]] = [[] for _ in texts]
    start = 0
    for length in lengths:
        for text, cache, logits in zip(texts, caches, found, strict=True):
            logits.append(decoder.forward_all(cache, text[start : start + length]))
        start += length
    return [torch.cat(logits) for logits in found]


def by_blocks(checkpoint: Checkpoint, tokens: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the logits [T, V] of the model run block by block from disk."""
    streamed = BlockModel(checkpoint, dtype)
    hidden = finish(streamed.run(torch.tensor([list(tokens)])))
    with closing(streamed.logits(hidden)) as pieces:
        return torch.cat([piece[0].float() for piece in pieces])


def packed(checkpoint: Checkpoint, place: Path, mode: str = "int8_asym") -> Path:
    """Compress everything to a mode and return the exported folder."""
    plan = make_plan(checkpoint.layers, Choice.of(mode, -1, 1, mode))
    return write_folder(checkpoint, finish(compress(checkpoint, plan, place / "packed")), place / "exported")
