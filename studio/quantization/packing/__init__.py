"""Codes <-> bytes. Knows nothing of how the codes were found or of what multiplies them."""

from studio.quantization.packing.bits import pack_bits, unpack_bits
from studio.quantization.packing.packed_tensor import PackedTensor, pack, unpack

__all__ = ["PackedTensor", "pack", "pack_bits", "unpack", "unpack_bits"]
