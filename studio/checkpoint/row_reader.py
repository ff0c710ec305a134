"""A layer's weight, a few megabytes of rows at a time. Knows nothing of what is done with them."""

from collections.abc import Iterator

from torch import Tensor

from studio.base.device import chunk_weights, moved
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Layer

CHUNK_WEIGHTS = 1 << 22
"""Weights worked on at once: 16 MB of fp32."""


def chunks(layer: Layer) -> list[tuple[int, int]]:
    """Return row ranges of a weight that are small enough to work on at once, each but the last of even length."""
    rows, width = layer.matrix
    step = chunk_rows(width)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def chunk_rows(width: int) -> int:
    """Return how many rows of a weight are worked on at once, an even number."""
    return max(2, chunk_weights(CHUNK_WEIGHTS) // width & ~1)


def rows_of(checkpoint: Checkpoint, layer: Layer) -> Iterator[Tensor]:
    """Yield a weight's rows [n, K] in turn, where they are worked on."""
    for start, stop in chunks(layer):
        yield moved(checkpoint.read(layer, start, stop))
