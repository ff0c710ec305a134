"""Codes <-> bytes. Knows nothing of how the codes were found or of what multiplies them."""

from studio.packing.nibbles import pack_nibbles, unpack_nibbles
from studio.packing.tensor import PackedTensor, pack, unpack

__all__ = ["PackedTensor", "pack", "pack_nibbles", "unpack", "unpack_nibbles"]
