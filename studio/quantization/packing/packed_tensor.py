"""A packed weight as the file holds it: the arrays that ``Scheme.parts`` names."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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

    @classmethod
    def of(cls, scheme: Scheme, shape: tuple[int, int], arrays: Mapping[str, Tensor]) -> "PackedTensor":
        """Return the weight of these stored arrays, by the name of their part."""
        form = scheme.mode.stored_as
        tensor_params = None if form.tensor_params is None else arrays[form.tensor_params[0]]
        return cls(scheme, shape, arrays["codes"], arrays["scale"], arrays.get("zero_point"), tensor_params)

    def arrays(self) -> dict[str, Tensor]:
        """Return the stored arrays by the name of their part."""
        arrays = {"codes": self.codes, "scale": self.scale}
        if self.zero_point is not None:
            arrays["zero_point"] = self.zero_point
        form = self.scheme.mode.stored_as
        if form.tensor_params is not None and self.tensor_params is not None:
            arrays[form.tensor_params[0]] = self.tensor_params
        return arrays

    def dequantize(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows ``start:stop`` of the weight the numbers stand for, fp32 [rows, K]."""
        return dequantize(unpack(self, start, stop), self.scheme.mode)


def pack(rounded: QuantizedWeight, scheme: Scheme) -> PackedTensor:
    """Return the stored form of ``rounded``, its scale in the format's dtype; :func:`unpack` is the exact inverse."""
    form = scheme.mode.stored_as
    rounded = rounded.stored(form.scale_dtype)
    rows, width = rounded.codes.shape
    if form.bits == 8:
        codes = _stored_bytes(rounded.codes, form.code_dtype)
        return PackedTensor(scheme, (rows, width), codes, rounded.scale, rounded.zero_point, rounded.tensor_params)
    zero_point = None if rounded.zero_point is None else pack_bits(rounded.zero_point.flatten(), 4)
    codes = pack_bits(rounded.codes, form.bits)
    return PackedTensor(scheme, (rows, width), codes, rounded.scale, zero_point, rounded.tensor_params)


def unpack(packed: PackedTensor, start: int = 0, stop: int | None = None) -> QuantizedWeight:
    """Return rows ``start:stop`` of a packed weight as codes and scales."""
    rows, width = packed.shape
    form = packed.scheme.mode.stored_as
    begin, end, _ = slice(start, stop).indices(rows)
    codes, scale, zero_point = packed.codes[begin:end], packed.scale[begin:end], packed.zero_point
    if form.bits == 8:
        zeros = None if zero_point is None else zero_point[begin:end]
        return QuantizedWeight(_code_bytes(codes), scale, zeros, packed.tensor_params)
    if zero_point is not None:
        # Zero points run on from row to row: those of an odd row may begin in the middle of a byte.
        groups = scale.shape[1]
        first, last = begin * groups, end * groups
        nibbles = unpack_bits(zero_point[first // 2 : -(-last // 2)], 4, last - first // 2 * 2)
        zero_point = nibbles[first % 2 :].reshape(end - begin, groups)
    return QuantizedWeight(unpack_bits(codes, form.bits, width), scale, zero_point, packed.tensor_params)


def _stored_bytes(codes: Tensor, dtype: str) -> Tensor:
    """uint8 as rounding gives them -> the dtype of the file; flipping the top bit is subtracting 128."""
    if dtype == "I8":
        return (codes ^ 0x80).view(torch.int8)
    return codes.view(torch.float8_e4m3fn) if dtype == "F8_E4M3" else codes


def _code_bytes(stored: Tensor) -> Tensor:
    codes = stored.view(torch.uint8)
    return codes ^ 0x80 if stored.dtype == torch.int8 else codes
