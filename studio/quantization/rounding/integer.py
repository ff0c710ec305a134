"""Integers of 2 to 8 bits, with and without a zero point, on NNCF's grids.

Source: ``nncf/quantization/algorithms/weight_compression/weight_lowering.py``, 3.4. Knows nothing of how codes are
packed.
"""

from functools import cache

import torch
from torch import Tensor

from studio.quantization.rounding.quantized_weight import EPSILON, Codes, NumberFormat, divided


@cache
def asymmetric(bits: int) -> NumberFormat:
    """Return the grid of unsigned codes; the range is widened to hold zero, so that zero stays exactly zero."""
    top = 2**bits - 1

    def round_(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        low = grouped.amin(2, keepdim=True).clamp_(max=0)
        high = grouped.amax(2, keepdim=True).clamp_(min=0)
        scale = divided(high - low, top).clamp_(min=EPSILON)
        zero_point = (low / scale).round_().neg_().clamp_(0, top)
        return encode((grouped / scale).add_(zero_point), None), scale.squeeze(2), zero_point.squeeze(2)

    def encode(normal: Tensor, _: Tensor | None) -> Tensor:
        return normal.round().clamp_(0, top)

    return NumberFormat(round_, lambda codes, _: codes.to(torch.float32), encode, codes=Codes.ASYMMETRIC, bits=bits)


@cache
def symmetric(bits: int) -> NumberFormat:
    """Return the grid of signed codes; the scale's sign gives the extreme weight the code -2^(b-1)."""
    half = 2 ** (bits - 1)

    def round_(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        low = grouped.amin(2, keepdim=True)
        high = grouped.amax(2, keepdim=True)
        scale = torch.where(low.abs() >= high, low.abs(), -high) / half
        scale = torch.where(scale.abs() < EPSILON, EPSILON, scale)
        return encode(grouped / scale, None), scale.squeeze(2), None

    def encode(normal: Tensor, _: Tensor | None) -> Tensor:
        return normal.round().clamp_(-half, half - 1).add_(half)

    return NumberFormat(
        round_, lambda codes, _: codes.to(torch.float32) - half, encode, codes=Codes.SYMMETRIC, bits=bits
    )
