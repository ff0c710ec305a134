"""A weight on its grid, and what a number format must say about itself. Knows no format."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Protocol

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import Blocks

EPSILON = 2.0**-23
"""The smallest scale of integers and codebooks, the smallest maximum of float formats: all-zero groups need one."""

SCALE_DTYPES = {
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight on its grid.

    ``codes`` uint8 [N, K]; signed codes of symmetric modes are stored plus half the range (-8 -> 0, -128 -> 0), codes
    of float formats are their bits. ``scale`` [N, G], fp32 as found or in the dtype of the file. ``zero_point`` uint8
    [N, G], or None. ``tensor_params``: what the whole tensor has in common, [C], or None. ``offset`` [N, G], in the
    scale's dtype, or None: what is added in each group.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None
    tensor_params: Tensor | None = None
    blocks: Blocks | None = None
    """The grid of a format whose scales lie in blocks with the codes; its own codes are those above."""
    offset: Tensor | None = None

    def rows(self, rows: slice | Tensor) -> "QuantizedWeight":
        """Return some rows, as a slice or by their indices."""
        zeros = None if self.zero_point is None else self.zero_point[rows]
        blocks = None if self.blocks is None else self.blocks.rows(rows)
        offset = None if self.offset is None else self.offset[rows]
        codes = self.codes[rows].contiguous()
        return QuantizedWeight(codes, self.scale[rows], zeros, self.tensor_params, blocks, offset)

    def stored(self, scale_dtype: str = "F16") -> "QuantizedWeight":
        """Return the same with the scale and offset that a file holds."""
        dtype = SCALE_DTYPES[scale_dtype]
        return replace(self, scale=self.scale.to(dtype), offset=None if self.offset is None else self.offset.to(dtype))

    def zeros(self) -> Tensor:
        """Return which code, or what between codes, stands for zero, fp32 [N, G]: ``(value - zero) * scale``.

        0 where there is neither zero point nor offset; for other scales than zero.
        """
        if self.offset is not None:
            return -self.offset.float() / self.scale.float()
        return torch.zeros_like(self.scale, dtype=torch.float32) if self.zero_point is None else self.zero_point.float()


Round = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor | None]]
"""[N, G, g] fp32, tensor_params -> codes [N, G, g] of any dtype, scale [N, G] fp32, zero point [N, G] or None; of a
format with offsets these, fp32."""
Values = Callable[[Tensor, Tensor | None], Tensor]
"""codes uint8 [...], tensor_params -> what they stand for before zero point and scale, fp32 [...]."""
Encode = Callable[[Tensor, Tensor | None], Tensor]
"""w / scale + zero point, fp32 [...], tensor_params -> the codes of the nearest values [...], of any dtype."""


class Fit(Protocol):
    """Finds what a whole tensor shares, piece by piece."""

    def add(self, grouped: Tensor) -> None:
        """Look at the groups [N, G, g], fp32, of some rows more."""
        ...

    def result(self) -> Tensor:
        """Return what the tensor shares [C], of the groups seen."""
        ...


class Codes(Enum):
    """What codes are: compiled products ask for it, and leave to the general path what they do not know."""

    SYMMETRIC = auto()
    """Integers, stored plus half their range."""
    ASYMMETRIC = auto()
    """Integers under a zero point."""
    AFFINE = auto()
    """Integers from zero, to which an offset is added after the scale."""
    LEVELS = auto()
    """Places in a table that the whole tensor shares, without zero points."""
    E2M1 = auto()
    E4M3 = auto()
    OTHER = auto()
    """Whatever ``values`` makes of them."""


@dataclass(frozen=True, eq=False)
class NumberFormat:
    """A number format: how weights get their codes, and what the codes stand for.

    One object for each format: compiled rounding names those it is the twin of.
    """

    round: Round
    values: Values
    encode: Encode
    fit: Callable[[], Fit] | None = None
    """Only where the whole tensor shares something."""
    codes: Codes = Codes.OTHER
    bits: int = 0
    """Of a code, 0 where the grid is for any number of them."""
    has_global_scale: bool = False
    """Whether what the tensor shares is a number that every scale is multiplied with."""

    @property
    def takes_zero_point(self) -> bool | None:
        """Whether its groups have zero points, None where only rounding tells."""
        return None if self.codes is Codes.OTHER else self.codes is Codes.ASYMMETRIC

    @property
    def has_offset(self) -> bool:
        """Whether its groups have offsets."""
        return self.codes is Codes.AFFINE

    def scales(self, rounded: QuantizedWeight) -> Tensor:
        """Return what codes are multiplied with, fp32 [N, G]."""
        scale = rounded.scale.to(torch.float32)
        if self.has_global_scale and rounded.tensor_params is not None:
            scale = scale * rounded.tensor_params.to(scale.device)
        return scale


def largest(grouped: Tensor) -> Tensor:
    """Return the largest magnitude of each group, [N, G, g] -> [N, G, 1]."""
    return grouped.abs().amax(2, keepdim=True)


def divided(tensor: Tensor, number: float) -> Tensor:
    """Return ``tensor / number``, correctly rounded on every device, which keeps codes the same on all of them.

    Given a Python number, torch on CUDA multiplies by its reciprocal instead.
    """
    return tensor / torch.full((), number, dtype=tensor.dtype, device=tensor.device)


def scale_to(top: float, grouped: Tensor) -> Tensor:
    """Return the scale that takes each group's largest magnitude to ``top``, [N, G, g] -> [N, G, 1].

    NNCF's compiled path, which weights of 10,000 numbers and more take, floors the magnitude before it divides.
    """
    return divided(largest(grouped).clamp_(min=EPSILON), top)


def power_of_two(scale: Tensor) -> Tensor:
    """Return the smallest power of two that is not below each scale, which is all that E8M0 can hold.

    In NNCF's words: ln times 1/ln 2, each rounded to fp32, which takes a few exact powers (2^-13, 2^-15) to the next.
    The logarithm is rounded from fp64, so that every device finds the same.
    """
    exponent = torch.log(scale.double()).float() * (1 / math.log(2))
    return torch.exp2(exponent.ceil_().clamp_(-127, 127))
