"""Sixteen fixed levels under one scale a group: NF4, and NNCF's CB4.

Sources: QLoRA (Dettmers et al. 2023, appendix E) for NF4; ``constants.py`` of NNCF 3.4's weight compression for CB4.
Knows nothing of how codes are packed.
"""

from functools import cache

import torch
from torch import Tensor

from studio.quantization.rounding.quantized_weight import EPSILON, Codes, NumberFormat, divided, largest

NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
CB4_LEVELS = (
    -3.5, -2.5, -1.875, -1.375, -1.0, -0.625, -0.3125, 0.0,
    0.28125, 0.5625, 0.875, 1.125, 1.5, 2.0, 2.5, 3.5,
)  # fmt: skip


def fixed(levels: tuple[float, ...]) -> NumberFormat:
    """Return the grid of the nearest of ``levels`` (rising) to w / scale; the scale is max|w| / the largest level."""
    top = max(abs(level) for level in levels)

    def round_(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        scale = divided(largest(grouped), top).clamp_(min=EPSILON)
        return encode(grouped / scale, None), scale.squeeze(2), None

    def encode(normal: Tensor, _: Tensor | None) -> Tensor:
        return nearest(normal, tables(levels, normal.device)[1])

    def values(codes: Tensor, _: Tensor | None) -> Tensor:
        return look_up(tables(levels, codes.device)[0], codes)

    return NumberFormat(round_, values, encode, codes=Codes.LEVELS, bits=4)


BINS = 1024
MARGIN = 1e-3
"""In bins: what rounding may do to the place of a number in one."""


def nearest(normal: Tensor, midpoints: Tensor) -> Tensor:
    """Return the index of the level nearest to each number; one exactly halfway takes the lower.

    A search takes 10 ns a number; of many, each is compared with the one midpoint that its bin may hold.
    """
    low, high = midpoints[0], midpoints[-1]
    width = (high - low) / (BINS - 2)
    if normal.numel() < 16 * BINS or not bool(midpoints.diff().min() > (1 + 2 * MARGIN) * width):
        return torch.bucketize(normal.contiguous(), midpoints, out_int32=True)
    edges = torch.arange(-1, BINS - 1, dtype=torch.int64, device=midpoints.device)
    below = torch.bucketize(low + (edges - MARGIN) * width, midpoints, out_int32=True)
    below[0] = 0
    coming = torch.cat((midpoints, midpoints.new_full((1,), torch.inf)))[below]
    places = ((normal - low) / width).add_(1).clamp_(0, BINS - 1).int().clamp_(0, BINS - 1)  # NaN is no place
    return look_up(below, places).add_(normal > look_up(coming, places))


def look_up(levels: Tensor, codes: Tensor) -> Tensor:
    """Return the ``levels`` [L] that ``codes`` [...] stand for, [...]."""
    return levels.index_select(0, codes.flatten().int()).reshape(codes.shape)


@cache
def tables(levels: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the levels [L] and the midpoints between them [L - 1], fp32."""
    values = torch.tensor(levels, dtype=torch.float32, device=device)
    return values, (values[1:] + values[:-1]) / 2


NF4, CB4 = fixed(NF4_LEVELS), fixed(CB4_LEVELS)
