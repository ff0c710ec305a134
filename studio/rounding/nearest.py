"""Round to nearest, on NNCF's grids (``nncf/quantization/algorithms/weight_compression/weight_lowering.py``, 3.4).

Everything is fp32. Codes are found with the fp32 scale, the scale is stored as fp16 afterwards, as NNCF does.
"""

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from studio.scheme import Mode, Scheme

EPSILON = 2.0**-23
"""The smallest scale: keeps all-zero groups defined, and is still a number in fp16."""

NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The sixteen NormalFloat levels (QLoRA, Dettmers et al. 2023, appendix E)."""


@dataclass(frozen=True)
class Rounded:
    """A weight on its grid.

    ``codes`` uint8 [N, K]; signed codes of symmetric modes are stored plus half the range (-8 -> 0, -128 -> 0).
    ``scale`` [N, G], fp32 as found or fp16 as stored. ``zero_point`` uint8 [N, G], or None.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None

    def stored(self) -> "Rounded":
        """Return the same with the scale that a file holds, fp16."""
        return replace(self, scale=self.scale.half())


def round_to_nearest(weight: Tensor, scheme: Scheme) -> Rounded:
    """Return ``weight`` [N, K], of any float dtype, on the grid of ``scheme``."""
    rows, width = weight.shape
    grouped = weight.to(torch.float32).reshape(rows, scheme.groups(width), -1)
    if scheme.mode is Mode.NF4:
        return _nearest_level(grouped)
    if scheme.mode.has_zero_point:
        return _asymmetric(grouped, scheme.mode.bits)
    return _symmetric(grouped, scheme.mode.bits)


def dequantize(rounded: Rounded, mode: Mode) -> Tensor:
    """Return the weight that the stored numbers stand for, fp32 [N, K]: ``(codes - zero_point) * scale``."""
    rows, width = rounded.codes.shape
    codes = rounded.codes.reshape(rows, rounded.scale.shape[1], -1)
    scale = rounded.scale.to(torch.float32).unsqueeze(2)
    if mode is Mode.NF4:
        levels = _nf4_tables(codes.device)[0]
        return (levels[codes.int()] * scale).reshape(rows, width)
    zero: Tensor | int = 2 ** (mode.bits - 1)
    if rounded.zero_point is not None:
        zero = rounded.zero_point.to(torch.float32).unsqueeze(2)
    return ((codes.to(torch.float32) - zero) * scale).reshape(rows, width)


def _asymmetric(grouped: Tensor, bits: int) -> Rounded:
    """[N, G, g] fp32 -> unsigned codes; the range is widened to hold zero, so that zero stays exactly zero."""
    top = 2**bits - 1
    low = grouped.amin(2, keepdim=True).clamp_(max=0)
    high = grouped.amax(2, keepdim=True).clamp_(min=0)
    scale = ((high - low) / top).clamp_(min=EPSILON)
    zero_point = (low / scale).round_().neg_().clamp_(0, top)
    codes = (grouped / scale).add_(zero_point).round_().clamp_(0, top)
    return Rounded(_flat(codes), scale.squeeze(2), zero_point.squeeze(2).to(torch.uint8))


def _symmetric(grouped: Tensor, bits: int) -> Rounded:
    """[N, G, g] fp32 -> signed codes; the scale's sign gives the extreme weight the code -2^(b-1)."""
    half = 2 ** (bits - 1)
    low = grouped.amin(2, keepdim=True)
    high = grouped.amax(2, keepdim=True)
    scale = torch.where(low.abs() >= high, low.abs(), -high) / half
    scale = torch.where(scale.abs() < EPSILON, EPSILON, scale)
    codes = (grouped / scale).round_().clamp_(-half, half - 1).add_(half)
    return Rounded(_flat(codes), scale.squeeze(2), None)


def _nearest_level(grouped: Tensor) -> Rounded:
    """[N, G, g] fp32 -> indices of the nearest NF4 level of w / max|w|."""
    scale = grouped.abs().amax(2, keepdim=True).clamp_(min=EPSILON)
    _, midpoints = _nf4_tables(grouped.device)
    codes = torch.bucketize((grouped / scale).contiguous(), midpoints)
    return Rounded(_flat(codes), scale.squeeze(2), None)


@cache
def _nf4_tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the levels [16] and the midpoints between them [15]."""
    levels = torch.tensor(NF4_LEVELS, dtype=torch.float32, device=device)
    return levels, (levels[1:] + levels[:-1]) / 2


def _flat(codes: Tensor) -> Tensor:
    return codes.to(torch.uint8).reshape(codes.shape[0], -1)
