"""Codes of 2 to 7 bits packed along a row, low bits first: those of 3 and 5 to 7 bits run over the ends of bytes.

Knows nothing of what they stand for.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Return uint8 [..., ceil(K * bits / 8)] from codes 0..2^bits - 1, uint8 [..., K]; the end is filled with zero."""
    width = codes.shape[-1]
    if bits == 4:
        codes = pad(codes, (0, width % 2))
        return codes[..., 0::2] | (codes[..., 1::2] << 4)
    octets = _in_runs(codes, 8, _word(bits))  # 8 codes fill `bits` whole bytes
    words = (octets << _steps(8, bits, octets)).sum(-1, dtype=octets.dtype)
    shifts = _steps(bits, 8, octets)
    packed: Tensor = ((words.unsqueeze(-1) >> shifts) & 0xFF).to(torch.uint8).flatten(-2)
    return packed[..., : -(-width * bits // 8)]


def unpack_bits(packed: Tensor, bits: int, width: int) -> Tensor:
    """Return codes uint8 [..., width] from uint8 [..., ceil(width * bits / 8)]: the inverse of :func:`pack_bits`."""
    if bits == 4:
        return torch.stack((packed & 0x0F, packed >> 4), dim=-1).flatten(-2)[..., :width]
    pieces = _in_runs(packed, bits, _word(bits))
    words = (pieces << _steps(bits, 8, pieces)).sum(-1, dtype=pieces.dtype)
    codes: Tensor = (words.unsqueeze(-1) >> _steps(8, bits, pieces)) & (2**bits - 1)
    return codes.to(torch.uint8).flatten(-2)[..., :width]


def _word(bits: int) -> torch.dtype:
    """Return what holds 8 codes."""
    return torch.int32 if bits < 4 else torch.int64


def _steps(count: int, size: int, like: Tensor) -> Tensor:
    """Return 0, ``size``, 2 ``size``, … [count]."""
    return size * torch.arange(count, device=like.device, dtype=like.dtype)


def _in_runs(numbers: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """[..., K] -> [..., ceil(K / length), length] of ``dtype``, the end filled with zero."""
    padded = pad(numbers, (0, -numbers.shape[-1] % length))
    return padded.reshape(*padded.shape[:-1], -1, length).to(dtype)
