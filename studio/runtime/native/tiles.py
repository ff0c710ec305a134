"""A weight in tiles of sixteen rows, as the compiled decoder multiplies with it (``cpu/weight.h``): what there is of
it, and whether it goes together. Knows no format; ``tiling.py`` makes them."""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from studio.runtime.native.arena import Arena
from studio.runtime.native.tile_codes import LANES, RUN

WIDTH = 64
"""Inputs of weights with one scale a row are filled up to a multiple of this."""
LOOKED_UP = 16
"""Numbers that codes are looked up in."""
LARGEST = 1 << 26
"""No weight has more rows or inputs."""
BLOCKS = (64, 32, 16)
"""Inputs that can share a step size, where codes are integers."""


class Kind(IntEnum):
    """How a tile's codes are read, in the order of ``weight.h``."""

    HALF = 0
    BF16 = 1
    FLOAT8 = 2
    LEVELS4 = 3
    TABLE4 = 4
    INTEGER2 = 5
    INTEGER3 = 6
    INTEGER4 = 7
    INTEGER5 = 8
    INTEGER6 = 9
    INTEGER8 = 10

    @property
    def stored_as(self) -> torch.dtype:
        """The dtype of an array of codes."""
        return LAYOUTS[self].dtype

    def numbers(self, width: int) -> int:
        """Return how many numbers of that dtype a tile of ``width`` inputs has."""
        layout = LAYOUTS[self]
        return LANES * width * layout.bits // (8 * layout.dtype.itemsize)


@dataclass(frozen=True)
class Layout:
    """How a tile's codes lie: ``Layout(torch.int32, 4, 8)`` for eight codes of 4 bits in each number."""

    dtype: torch.dtype
    bits: int
    run: int
    """Inputs that the inner loop takes at once: they divide a row, and a group of codes that are no integers."""


LAYOUTS = {
    Kind.HALF: Layout(torch.int16, 16, 4),
    Kind.BF16: Layout(torch.int16, 16, 4),
    Kind.FLOAT8: Layout(torch.uint8, 8, 4),
    Kind.LEVELS4: Layout(torch.int32, 4, 8),
    Kind.TABLE4: Layout(torch.int32, 4, 16),
    Kind.INTEGER2: Layout(torch.int32, 2, 16),
    Kind.INTEGER3: Layout(torch.int32, 3, RUN),
    Kind.INTEGER4: Layout(torch.int32, 4, 16),
    Kind.INTEGER5: Layout(torch.int32, 5, RUN),
    Kind.INTEGER6: Layout(torch.int32, 6, 16),
    Kind.INTEGER8: Layout(torch.uint8, 8, 16),
}
FLOATS = frozenset({Kind.HALF, Kind.BF16})
LOOKUPS = frozenset({Kind.LEVELS4, Kind.TABLE4})
INTEGERS = frozenset(Kind) - FLOATS - {Kind.FLOAT8, Kind.LEVELS4}
ARRAYS = ("codes", "scale", "offset", "scale_factor", "offset_factor", "zero", "levels", "bias")


@dataclass(frozen=True)
class Tiles:
    """A weight [N, K] in tiles; arrays in the layout of ``weight.h``, where it is told what codes and scales mean."""

    kind: Kind
    rows: int
    width: int
    """K filled up."""
    group: int
    codes: Tensor
    block: int = 0
    middle: float = 0
    scale: Tensor | None = None
    """fp16 or fp32 [tiles, spans, 16]."""
    zero: Tensor | None = None
    """uint8 [tiles, groups, 16]."""
    levels: Tensor | None = None
    """fp32 [16]."""
    bias: Tensor | None = None
    """fp32 [N]."""
    span: int = 0
    """Inputs that share a number of ``scale``; 0 where groups have their own."""
    offset: Tensor | None = None
    """What is added, in the scale's dtype and shape."""
    scale_factor: Tensor | None = None
    """int8 [tiles, groups, 16], where scales have two levels."""
    offset_factor: Tensor | None = None
    """The same of offsets."""

    @property
    def tiles(self) -> int:
        """How many there are."""
        return -(-self.rows // LANES)

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Those that are there, by name."""
        found = {name: getattr(self, name) for name in ARRAYS}
        return {name: array for name, array in found.items() if array is not None}

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def within(self, arena: Arena) -> "Tiles":
        """Return the same with its arrays in ``arena``."""
        return self.with_arrays({name: arena.put(array) for name, array in self.arrays.items()})

    def with_arrays(self, arrays: dict[str, Any]) -> "Tiles":
        """Return the same with these in place of its own."""
        return replace(self, **arrays)

    def check(self) -> None:
        """Raise ValueError where sizes do not go together, or an array is missing that codes of this kind need."""
        kind, is_integer, run = self.kind, self.kind in INTEGERS, LAYOUTS[self.kind].run
        span = self.span or self.group
        if not all(0 < size <= LARGEST for size in (self.rows, self.width, self.group, span)):
            raise ValueError(f"no weight is of {self}")
        if self.block not in (BLOCKS if is_integer else (0,)):
            raise ValueError(f"{kind.name} has no blocks of {self.block}")
        if self.width % span or span % self.group or self.group % (self.block or run) or self.width % run:
            raise ValueError(f"groups of {self.group} do not divide {self.width} inputs")
        if (self.scale is None) != (kind in FLOATS) or (self.levels is None) == (kind in LOOKUPS):
            raise ValueError(f"an array of {kind.name} is missing")
        more = (self.zero, self.offset, self.scale_factor, self.offset_factor)
        if not is_integer and any(array is not None for array in more):
            raise ValueError(f"{kind.name} has neither zero points nor offsets nor two levels")
        if self.offset is not None and (self.zero is not None or self.middle):
            raise ValueError("a weight has zero points or offsets")
        has_two_levels = self.scale_factor is not None
        if has_two_levels != (span != self.group):
            raise ValueError(f"scales of {span} inputs are not those of {self.group}")
        if (self.offset_factor is not None) != (has_two_levels and self.offset is not None):
            raise ValueError("scales and offsets have two levels or one")
