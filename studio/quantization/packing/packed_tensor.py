"""A packed weight as the file holds it: the arrays that ``Scheme.parts`` names.

Knows not how its numbers were found.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.quantization.mode import FLAT_ZERO_POINT_BITS
from studio.quantization.packing.bits import pack_bits, unpack_bits
from studio.quantization.rounding import QuantizedWeight, dequantize
from studio.quantization.scheme import Scheme


@dataclass(frozen=True)
class PackedTensor:
    """A [N, K] weight in the arrays of ``scheme.parts((N, K))``."""

    scheme: Scheme
    shape: tuple[int, int]
    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None = None
    tensor_params: Tensor | None = None
    """What the whole tensor has in common, under the name its format gives it."""
    offset: Tensor | None = None
    """What is added in each group, [N, G] in the scale's dtype."""

    @classmethod
    def of(cls, scheme: Scheme, shape: tuple[int, int], arrays: Mapping[str, Tensor]) -> "PackedTensor":
        """Return the weight of these stored arrays, by the name of their part."""
        form = scheme.mode.stored_as
        if form.block is not None:
            return _in_blocks(scheme, shape, arrays["blocks"])
        tensor_params = None if form.tensor_params is None else arrays[form.tensor_params[0]]
        zero_point, offset = (arrays.get(part) for part in ("zero_point", "offset"))
        return cls(scheme, shape, arrays["codes"], arrays["scale"], zero_point, tensor_params, offset)

    def arrays(self) -> dict[str, Tensor]:
        """Return the stored arrays by the name of their part."""
        if self.scheme.mode.is_in_blocks:
            return {"blocks": self.codes}
        arrays = {"codes": self.codes, "scale": self.scale}
        if self.zero_point is not None:
            arrays["zero_point"] = self.zero_point
        if self.offset is not None:
            arrays["offset"] = self.offset
        form = self.scheme.mode.stored_as
        if form.tensor_params is not None and self.tensor_params is not None:
            arrays[form.tensor_params[0]] = self.tensor_params
        return arrays

    def dequantize(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows ``start:stop`` of the weight the numbers stand for, fp32 [rows, K]."""
        return dequantize(unpack(self, start, stop), self.scheme.mode)


def pack(rounded: QuantizedWeight, scheme: Scheme) -> PackedTensor:
    """Return the stored form of ``rounded``, its scale in the format's dtype; :func:`unpack` is the exact inverse.

    Raises ValueError for zero points or offsets that the format has no place for, or that it misses.
    """
    form = scheme.mode.stored_as
    if rounded.blocks is not None:
        rows, width = rounded.codes.shape
        return _in_blocks(
            scheme, (rows, width), scheme.mode.block_format.pack(rounded.blocks.with_codes(rounded.codes))
        )
    if (rounded.zero_point is not None) != form.has_zero_point:
        raise ValueError(f"{scheme} is stored {'with' if form.has_zero_point else 'without'} zero points")
    if (rounded.offset is not None) != form.has_offset:
        raise ValueError(f"{scheme} is stored {'with' if form.has_offset else 'without'} offsets")
    rounded = rounded.stored(form.scale_dtype)
    rows, width = rounded.codes.shape
    zero_point = None if rounded.zero_point is None else pack_zero_points(rounded.zero_point, form.zero_point_bits)
    codes = _stored_bytes(rounded.codes, form.code_dtype) if form.bits == 8 else pack_bits(rounded.codes, form.bits)
    return PackedTensor(scheme, (rows, width), codes, rounded.scale, zero_point, rounded.tensor_params, rounded.offset)


def _in_blocks(scheme: Scheme, shape: tuple[int, int], blocks: Tensor) -> PackedTensor:
    """Return a weight whose scales lie with the codes, uint8 [N, bytes of a row]."""
    return PackedTensor(scheme, shape, blocks, torch.empty(shape[0], 0, dtype=torch.float16, device=blocks.device))


def unpack(packed: PackedTensor, start: int = 0, stop: int | None = None) -> QuantizedWeight:
    """Return rows ``start:stop`` of a packed weight as codes and scales."""
    rows, width = packed.shape
    form = packed.scheme.mode.stored_as
    begin, end, _ = slice(start, stop).indices(rows)
    codes = packed.codes[begin:end]
    if form.block is not None:
        blocks = packed.scheme.mode.block_format.unpack(codes)
        return QuantizedWeight(blocks.codes, blocks.scale(), None, None, blocks)
    unpacked = _code_bytes(codes) if form.bits == 8 else unpack_bits(codes, form.bits, width)
    zeros, offset = zero_points(packed, begin, end), None if packed.offset is None else packed.offset[begin:end]
    return QuantizedWeight(unpacked, packed.scale[begin:end], zeros, packed.tensor_params, offset=offset)


def pack_zero_points(zero_point: Tensor, bits: int) -> Tensor:
    """Return zero points uint8 [N, G] as ``Scheme.parts`` lays them out."""
    if bits == 8:
        return zero_point
    return pack_bits(zero_point.flatten() if bits == FLAT_ZERO_POINT_BITS else zero_point, bits)


def zero_points(packed: PackedTensor, start: int = 0, stop: int | None = None) -> Tensor | None:
    """Return the zero points of rows ``start:stop``, uint8 [rows, G], None where there are none."""
    begin, end, _ = slice(start, stop).indices(packed.shape[0])
    stored, bits, groups = packed.zero_point, packed.scheme.mode.stored_as.zero_point_bits, packed.scale.shape[1]
    if stored is None:
        return None
    if bits == 8:
        return stored[begin:end]
    if bits != FLAT_ZERO_POINT_BITS:
        return unpack_bits(stored[begin:end], bits, groups)
    # They run on from row to row: those of an odd row may begin in the middle of a byte.
    first, last = begin * groups, end * groups
    nibbles = unpack_bits(stored[first // 2 : -(-last // 2)], 4, last - first // 2 * 2)
    return nibbles[first % 2 :].reshape(end - begin, groups)


def _stored_bytes(codes: Tensor, dtype: str) -> Tensor:
    """uint8 as rounding gives them -> the dtype of the file; flipping the top bit is subtracting 128."""
    if dtype == "I8":
        return (codes ^ 0x80).view(torch.int8)
    return codes.view(torch.float8_e4m3fn) if dtype == "F8_E4M3" else codes


def _code_bytes(stored: Tensor) -> Tensor:
    codes = stored.view(torch.uint8)
    return codes ^ 0x80 if stored.dtype == torch.int8 else codes
