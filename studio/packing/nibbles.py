"""Two 4-bit codes to a byte, the first in the low half."""

import torch
from torch import Tensor


def pack_nibbles(codes: Tensor) -> Tensor:
    """Return uint8 [..., ceil(K/2)] from codes 0..15, uint8 [..., K]; an odd end is filled with zero."""
    if codes.shape[-1] % 2:
        codes = torch.nn.functional.pad(codes, (0, 1))
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def unpack_nibbles(packed: Tensor, width: int) -> Tensor:
    """Return codes uint8 [..., width] from uint8 [..., ceil(width/2)]: the inverse of :func:`pack_nibbles`."""
    pairs = torch.stack((packed & 0x0F, packed >> 4), dim=-1)
    return pairs.flatten(-2)[..., :width]
