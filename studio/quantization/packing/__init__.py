"""Codes <-> bytes. Knows nothing of how the codes were found or of what multiplies them."""

from studio.quantization.packing.bits import pack_bits, unpack_bits
from studio.quantization.packing.packed_tensor import PackedTensor, pack, pack_zero_points, unpack, zero_points

__all__ = ["PackedTensor", "pack", "pack_bits", "pack_zero_points", "unpack", "unpack_bits", "zero_points"]
