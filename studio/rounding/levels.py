"""Sixteen fixed levels under one scale a group: NF4, and NNCF's CB4.

Sources: QLoRA (Dettmers et al. 2023, appendix E) for NF4; ``constants.py`` of NNCF 3.4's weight compression for CB4.
"""

from functools import cache

import torch
from torch import Tensor

from studio.rounding.rounded import EPSILON, Grid, divided, largest

NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
CB4_LEVELS = (
    -3.5, -2.5, -1.875, -1.375, -1.0, -0.625, -0.3125, 0.0,
    0.28125, 0.5625, 0.875, 1.125, 1.5, 2.0, 2.5, 3.5,
)  # fmt: skip


def fixed(levels: tuple[float, ...]) -> Grid:
    """Return the grid of the nearest of ``levels`` (rising) to w / scale; the scale is max|w| / the largest level."""
    top = max(abs(level) for level in levels)

    def round_(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        scale = divided(largest(grouped), top).clamp_(min=EPSILON)
        return encode(grouped / scale, None), scale.squeeze(2), None

    def encode(normal: Tensor, _: Tensor | None) -> Tensor:
        return nearest(normal, tables(levels, normal.device)[1])

    return Grid(round_, lambda codes, _: tables(levels, codes.device)[0][codes.int()], encode)


def nearest(normal: Tensor, midpoints: Tensor) -> Tensor:
    """Return the index of the level nearest to each number; one exactly halfway takes the lower."""
    return torch.bucketize(normal.contiguous(), midpoints)


@cache
def tables(levels: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the levels [L] and the midpoints between them [L - 1], fp32."""
    values = torch.tensor(levels, dtype=torch.float32, device=device)
    return values, (values[1:] + values[:-1]) / 2
