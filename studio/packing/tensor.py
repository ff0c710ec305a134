"""A packed weight as the file holds it: the arrays that ``Scheme.parts`` names."""

from dataclasses import dataclass

import torch
from torch import Tensor

from studio.packing.nibbles import pack_nibbles, unpack_nibbles
from studio.rounding import Rounded, dequantize
from studio.scheme import Scheme


@dataclass(frozen=True)
class PackedTensor:
    """A [N, K] weight in the arrays of ``scheme.parts((N, K))``."""

    scheme: Scheme
    shape: tuple[int, int]
    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None

    def arrays(self) -> dict[str, Tensor]:
        """Return the stored arrays by the name of their part."""
        arrays = {"codes": self.codes, "scale": self.scale}
        return arrays if self.zero_point is None else arrays | {"zero_point": self.zero_point}

    def dequantize(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows ``start:stop`` of the weight the numbers stand for, fp32 [rows, K]."""
        return dequantize(unpack(self, start, stop), self.scheme.mode)


def pack(rounded: Rounded, scheme: Scheme) -> PackedTensor:
    """Return the stored form of ``rounded``, its scale in fp16; :func:`unpack` is the exact inverse."""
    rounded = rounded.stored()
    rows, width = rounded.codes.shape
    if scheme.mode.bits == 8:
        codes = rounded.codes if scheme.mode.has_zero_point else _signed(rounded.codes)
        return PackedTensor(scheme, (rows, width), codes, rounded.scale, rounded.zero_point)
    zero_point = None if rounded.zero_point is None else pack_nibbles(rounded.zero_point.flatten())
    return PackedTensor(scheme, (rows, width), pack_nibbles(rounded.codes), rounded.scale, zero_point)


def unpack(packed: PackedTensor, start: int = 0, stop: int | None = None) -> Rounded:
    """Return rows ``start:stop`` of a packed weight as codes and scales."""
    rows, width = packed.shape
    picked = slice(start, rows if stop is None else stop)
    scale = packed.scale[picked]
    if packed.scheme.mode.bits == 8:
        codes = packed.codes[picked]
        codes = codes if packed.scheme.mode.has_zero_point else _unsigned(codes)
        return Rounded(codes, scale, None if packed.zero_point is None else packed.zero_point[picked])
    zero_point = None
    if packed.zero_point is not None:
        groups = packed.scale.shape[1]
        zero_point = unpack_nibbles(packed.zero_point, rows * groups).reshape(rows, groups)[picked]
    return Rounded(unpack_nibbles(packed.codes[picked], width), scale, zero_point)


def _signed(codes: Tensor) -> Tensor:
    """0..255 -> -128..127; flipping the top bit is subtracting 128."""
    return (codes ^ 0x80).view(torch.int8)


def _unsigned(codes: Tensor) -> Tensor:
    return codes.view(torch.uint8) ^ 0x80
