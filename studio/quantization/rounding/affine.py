"""Integers from zero times a scale, plus an offset: a zero point that is no integer, ``w = q * scale + offset``.

Both numbers are of 16 bits a group, as MLX stores them, and codes are found under what is stored. They are fp16, not
bf16: the offset of 8-bit codes is up to 255 scales, and errs by 0.06 of one at most with fp16's eleven bits, by half a
scale with bf16's eight.

Of codes q the best scale and offset are the line of weighted least squares through the points (q, w): with means and
moments weighted by e, ``scale = cov(q, w) / var(q)``, ``offset = mean(w) - scale * mean(q)``; what is left is
``var(w) - scale * cov(q, w)``. Knows nothing of what a weight is given.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import BlockFormat, Blocks, steps
from studio.quantization.ggml.fit import FP16_MAX
from studio.quantization.rounding.quantized_weight import EPSILON, Codes, NumberFormat, QuantizedWeight, divided
from studio.quantization.scheme import Scheme

TURNS = 2
"""How often codes and numbers take turns at least, from each start."""


@cache
def affine(bits: int) -> NumberFormat:
    """Return the grid of codes from zero on whose ends are a group's least and largest weight."""
    top = 2**bits - 1

    def round_(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        low, high = grouped.amin(2, keepdim=True), grouped.amax(2, keepdim=True)
        scale = halves(divided(high, top) - divided(low, top)).clamp_(min=EPSILON)
        offset = halves(low)
        return encode((grouped - offset) / scale, None), scale.squeeze(2), offset.squeeze(2)

    def encode(normal: Tensor, _: Tensor | None) -> Tensor:
        return normal.round().clamp_(0, top)

    return NumberFormat(round_, lambda codes, _: codes.to(torch.float32), encode, codes=Codes.AFFINE, bits=bits)


def halves(numbers: Tensor) -> Tensor:
    """Return what fp16 holds of numbers, in fp32; the largest that there is for larger ones."""
    return numbers.clamp(-FP16_MAX, FP16_MAX).half().float()


def best_line(
    weights: Tensor, importances: Tensor, bits: int, ratios: Sequence[float], iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes fp32 [N, G, g], scale and offset [N, G, 1] as stored, of the least error of every start.

    ``weights`` and ``importances`` fp32 [N, G, g]; a start spans one of ``ratios`` of a group's range. NaN where no
    line is to be found.
    """
    top = 2**bits - 1
    whole = importances.sum(2, keepdim=True)
    mean = (importances * weights).sum(2, keepdim=True) / whole
    apart = weights - mean
    weighted = importances * apart
    energy = (weighted * apart).sum(2, keepdim=True)
    low, high = weights.amin(2, keepdim=True), weights.amax(2, keepdim=True)
    best_scale, best_offset = torch.full_like(low, torch.nan), torch.full_like(low, torch.nan)
    least = torch.full_like(low, torch.inf)
    for ratio in ratios:
        scale = ((high - low) * (ratio / top)).clamp_(min=EPSILON)
        offset = (low + high - scale * top) / 2
        for _ in range(max(TURNS, iterations)):
            codes = ((weights - offset) / scale).round_().clamp_(0, top)
            code = (importances * codes).sum(2, keepdim=True) / whole
            codes.sub_(code)
            together = (weighted * codes).sum(2, keepdim=True)
            slope = together / (codes.square_().mul_(importances)).sum(2, keepdim=True)
            is_sound = slope.half() >= EPSILON  # which NaN is not
            scale = torch.where(is_sound, slope, scale)
            offset = torch.where(is_sound, mean - slope * code, offset)
            error = torch.where(is_sound, energy - slope * together, torch.inf)
        is_better = error < least
        best_scale, best_offset = torch.where(is_better, scale, best_scale), torch.where(is_better, offset, best_offset)
        least = torch.where(is_better, error, least)
    best_scale, best_offset = halves(best_scale), halves(best_offset)
    return ((weights - best_offset) / best_scale).round_().clamp_(0, top), best_scale, best_offset


def form_of(scheme: Scheme, width: int) -> BlockFormat:
    """Return the groups of a weight [N, ``width``] as blocks of one level, for what moves numbers in blocks."""
    size = width // scheme.groups(width)
    return BlockFormat(str(scheme), size, size, 0, steps(0, 2**scheme.mode.bits), has_offset=True)


def as_blocks(rounded: QuantizedWeight) -> Blocks:
    """Return a weight with offsets as blocks of its groups. Raises ValueError for one without."""
    if rounded.offset is None:
        raise ValueError("a weight without offsets is not in blocks of them")
    return Blocks(rounded.codes, rounded.scale.half(), rounded.offset.half())


def from_blocks(blocks: Blocks) -> QuantizedWeight:
    """Return what :func:`as_blocks` made blocks of; a scale of zero becomes one that keeps its code of zero."""
    scale = blocks.scale()
    return QuantizedWeight(blocks.codes, torch.where(scale == 0, EPSILON, scale), None, offset=blocks.offset())
