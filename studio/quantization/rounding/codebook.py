"""Sixteen levels found for each tensor: the one-dimensional k-means of its weights, each over its group's maximum.

Lloyd's algorithm on a histogram, so that a tensor of any size costs one pass and a fixed number of small steps; a
weight counts with the square of its scale, which makes the sum minimised that of the weight's own squared error. Knows
no model, and not what a weight is given.
"""

import torch
from torch import Tensor

from studio.quantization.rounding.levels import NF4_LEVELS, look_up, nearest
from studio.quantization.rounding.quantized_weight import EPSILON, Codes, NumberFormat, largest

BINS = 4096
STEPS = 60
ZERO = 7
"""The level that stays zero, so that pruned and padding weights stay exactly so."""


class Levels:
    """The levels [16] of a tensor, rising, fp16."""

    def __init__(self) -> None:
        self._mass = torch.zeros(BINS, dtype=torch.float64)

    def add(self, grouped: Tensor) -> None:
        scale = largest(grouped).clamp_(min=EPSILON)
        bins = ((grouped / scale + 1) * (BINS / 2)).long().clamp_(0, BINS - 1)
        weight = scale.square().expand_as(grouped).double()
        self._mass += torch.bincount(bins.flatten(), weight.flatten(), BINS).cpu()

    def result(self) -> Tensor:
        centres = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (2 / BINS) - 1
        levels = torch.tensor(NF4_LEVELS, dtype=torch.float64)
        for _ in range(STEPS):
            owners = torch.bucketize(centres, (levels[1:] + levels[:-1]) / 2)
            weight = torch.zeros_like(levels).index_add_(0, owners, self._mass)
            moved = torch.zeros_like(levels).index_add_(0, owners, self._mass * centres)
            levels = torch.where(weight > 0, moved / weight.clamp(min=1e-300), levels)  # a level nobody takes stays
            levels[ZERO] = 0
        return levels.half()


def round_(grouped: Tensor, codebook: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    scale = largest(grouped).clamp_(min=EPSILON)
    return encode(grouped / scale, codebook), scale.squeeze(2), None


def encode(normal: Tensor, codebook: Tensor | None) -> Tensor:
    assert codebook is not None
    levels = codebook.to(normal.device, torch.float32)
    return nearest(normal, (levels[1:] + levels[:-1]) / 2)


def values(codes: Tensor, codebook: Tensor | None) -> Tensor:
    assert codebook is not None
    return look_up(codebook.to(codes.device, torch.float32), codes)


LEARNED = NumberFormat(round_, values, encode, Levels, Codes.LEVELS, bits=4)
