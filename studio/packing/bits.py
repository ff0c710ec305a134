"""Codes of 2, 3 or 4 bits packed along a row, low bits first: 3-bit codes run over the ends of bytes."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Return uint8 [..., ceil(K * bits / 8)] from codes 0..2^bits - 1, uint8 [..., K]; the end is filled with zero."""
    width = codes.shape[-1]
    if bits == 4:
        codes = pad(codes, (0, width % 2))
        return codes[..., 0::2] | (codes[..., 1::2] << 4)
    octets = _in_runs(codes, 8)  # 8 codes fill `bits` whole bytes
    words = (octets << (bits * torch.arange(8, device=codes.device, dtype=torch.int32))).sum(-1, dtype=torch.int32)
    shifts = 8 * torch.arange(bits, device=codes.device, dtype=torch.int32)
    packed: Tensor = ((words.unsqueeze(-1) >> shifts) & 0xFF).to(torch.uint8).flatten(-2)
    return packed[..., : -(-width * bits // 8)]


def unpack_bits(packed: Tensor, bits: int, width: int) -> Tensor:
    """Return codes uint8 [..., width] from uint8 [..., ceil(width * bits / 8)]: the inverse of :func:`pack_bits`."""
    if bits == 4:
        return torch.stack((packed & 0x0F, packed >> 4), dim=-1).flatten(-2)[..., :width]
    pieces = _in_runs(packed, bits)
    words = (pieces << (8 * torch.arange(bits, device=packed.device, dtype=torch.int32))).sum(-1, dtype=torch.int32)
    shifts = bits * torch.arange(8, device=packed.device, dtype=torch.int32)
    codes: Tensor = (words.unsqueeze(-1) >> shifts) & (2**bits - 1)
    return codes.to(torch.uint8).flatten(-2)[..., :width]


def _in_runs(numbers: Tensor, length: int) -> Tensor:
    """[..., K] -> int32 [..., ceil(K / length), length], the end filled with zero."""
    padded = pad(numbers, (0, -numbers.shape[-1] % length))
    return padded.reshape(*padded.shape[:-1], -1, length).to(torch.int32)
