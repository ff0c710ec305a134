"""Super-blocks of 256 whose sub-blocks have small integers for scales: Q2_K to Q6_K, and IQ4_XS.

Fields of a block in the order of the file; d and dmin are fp16, sub-blocks hold 16 or 32 codes:

| format | bytes | fields |
| --- | --- | --- |
| Q2_K | 84 | scales and mins[16] (4 bits each), codes[64], d, dmin |
| Q3_K | 110 | third bits[32], codes[64], scales[12] (6 bits each, plus 32), d |
| Q4_K | 144 | d, dmin, scales and mins[12] (6 bits each), codes[128] |
| Q5_K | 176 | d, dmin, scales and mins[12], fifth bits[32], codes[128] |
| Q6_K | 210 | low nibbles[128], upper bits[64], scales[16] (signed bytes), d |
| IQ4_XS | 136 | d, upper bits of scales[2], low nibbles of scales[4] (6 bits, plus 32), codes[128] |

Knows not how scales and codes are found.
"""

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import BlockFormat, Blocks, as_bytes, halves, nibbles, parted, steps
from studio.quantization.ggml.layouts import sizes_of
from studio.quantization.ggml.simple import IQ4_LEVELS

BLOCK = 256


def _shaped(tensor: Tensor, *shape: int) -> Tensor:
    """Return [N, S * a * b ...] as [N, S, a, b ...]."""
    return tensor.reshape(len(tensor), -1, *shape)


def _integers(tensor: Tensor | None, count: int) -> Tensor:
    if tensor is None:
        raise ValueError("a format of two levels needs its integers")
    return _shaped(tensor, count)


def _offsets(blocks: Blocks) -> Tensor:
    if blocks.dmin is None:
        raise ValueError("this format has offsets")
    return as_bytes(blocks.dmin)


# Q4_K and Q5_K: of eight scales and eight mins in 12 bytes, the first four of each keep their 6 bits in one byte, whose
# upper two bits are those of the last four.


def _pack_six(scales: Tensor, mins: Tensor) -> Tensor:
    """[N, S, 8] each -> uint8 [N, S, 12]."""
    s, m = scales.to(torch.uint8), mins.to(torch.uint8)
    first = s[..., :4] | s[..., 4:] >> 4 << 6
    second = m[..., :4] | m[..., 4:] >> 4 << 6
    return torch.cat([first, second, nibbles(s[..., 4:] & 15, m[..., 4:] & 15)], -1)


def _unpack_six(packed: Tensor) -> tuple[Tensor, Tensor]:
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = torch.cat([first & 63, (third & 15) | first >> 6 << 4], -1)
    mins = torch.cat([second & 63, third >> 4 | second >> 6 << 4], -1)
    return scales.flatten(1).to(torch.int16), mins.flatten(1).to(torch.int16)


def _pack_q4_k(blocks: Blocks) -> Tensor:
    codes = _shaped(blocks.codes, 4, 2, 32)
    scales = _pack_six(_integers(blocks.scales, 8), _integers(blocks.mins, 8))
    qs = nibbles(codes[..., 0, :], codes[..., 1, :]).flatten(-2)
    return torch.cat([as_bytes(blocks.d), _offsets(blocks), scales, qs], -1).flatten(1)


def _unpack_q4_k(packed: Tensor) -> Blocks:
    blocks = _shaped(packed, 144)
    scales, mins = _unpack_six(blocks[..., 4:16])
    codes = torch.stack(parted(_shaped(blocks[..., 16:].flatten(1), 4, 32)), -2)
    return Blocks(codes.flatten(1), halves(blocks, 0), halves(blocks, 2), scales, mins)


def _pack_q5_k(blocks: Blocks) -> Tensor:
    codes = _shaped(blocks.codes, 8, 32)
    places = torch.arange(8, dtype=torch.uint8, device=codes.device).unsqueeze(1)
    fifth = (codes >> 4 << places).sum(-2, dtype=torch.uint8)  # bit i of byte j: of code j of sub-block i
    scales = _pack_six(_integers(blocks.scales, 8), _integers(blocks.mins, 8))
    low = _shaped(blocks.codes & 15, 4, 2, 32)
    qs = nibbles(low[..., 0, :], low[..., 1, :]).flatten(-2)
    return torch.cat([as_bytes(blocks.d), _offsets(blocks), scales, fifth, qs], -1).flatten(1)


def _unpack_q5_k(packed: Tensor) -> Blocks:
    blocks = _shaped(packed, 176)
    scales, mins = _unpack_six(blocks[..., 4:16])
    places = torch.arange(8, dtype=torch.uint8, device=packed.device).unsqueeze(1)
    fifth = (blocks[..., 16:48].unsqueeze(-2) >> places) & 1
    low = torch.stack(parted(_shaped(blocks[..., 48:].flatten(1), 4, 32)), -2)
    codes = _shaped(low.flatten(1), 8, 32) | fifth << 4
    return Blocks(codes.flatten(1), halves(blocks, 0), halves(blocks, 2), scales, mins)


# Q6_K: each half of 128 has 64 bytes of low nibbles (values 0 to 63 low, 64 to 127 high) and 32 of upper bits.


def _pack_q6_k(blocks: Blocks) -> Tensor:
    codes = _shaped(blocks.codes, 2, 4, 32)
    low = codes & 15
    ql = torch.cat([nibbles(low[..., 0, :], low[..., 2, :]), nibbles(low[..., 1, :], low[..., 3, :])], -1).flatten(-2)
    places = 2 * torch.arange(4, dtype=torch.uint8, device=codes.device).unsqueeze(1)
    qh = (codes >> 4 << places).sum(-2, dtype=torch.uint8).flatten(-2)
    scales = _integers(blocks.scales, 16).to(torch.int8).view(torch.uint8)
    return torch.cat([ql, qh, scales, as_bytes(blocks.d)], -1).flatten(1)


def _unpack_q6_k(packed: Tensor) -> Blocks:
    blocks = _shaped(packed, 210)
    low, high = parted(_shaped(blocks[..., :128].flatten(1), 2, 2, 32))
    places = 2 * torch.arange(4, dtype=torch.uint8, device=packed.device).unsqueeze(1)
    upper = (_shaped(blocks[..., 128:192].flatten(1), 2, 1, 32) >> places) & 3
    codes = torch.cat([low, high], -2) | upper << 4
    scales = blocks[..., 192:208].contiguous().view(torch.int8).flatten(1).to(torch.int16)
    return Blocks(codes.flatten(1), halves(blocks, 208), None, scales)


# Q2_K and Q3_K: byte l of a half of 128 holds two bits each of values l, l + 32, l + 64 and l + 96, lowest first.


def _pack_two(codes: Tensor) -> Tensor:
    """[N, S, 256], 2 bits -> uint8 [N, S, 64]."""
    places = 2 * torch.arange(4, dtype=torch.uint8, device=codes.device).unsqueeze(1)
    return (codes.reshape(*codes.shape[:2], 2, 4, 32) << places).sum(-2, dtype=torch.uint8).flatten(-2)


def _unpack_two(packed: Tensor) -> Tensor:
    places = 2 * torch.arange(4, dtype=torch.uint8, device=packed.device).unsqueeze(1)
    return ((packed.reshape(*packed.shape[:2], 2, 1, 32) >> places) & 3).flatten(2)


def _pack_q2_k(blocks: Blocks) -> Tensor:
    scales, mins = (_integers(part, 16).to(torch.uint8) for part in (blocks.scales, blocks.mins))
    qs = _pack_two(_shaped(blocks.codes, BLOCK))
    return torch.cat([nibbles(scales, mins), qs, as_bytes(blocks.d), _offsets(blocks)], -1).flatten(1)


def _unpack_q2_k(packed: Tensor) -> Blocks:
    blocks = _shaped(packed, 84)
    scales, mins = (part.flatten(1).to(torch.int16) for part in parted(blocks[..., :16]))
    codes = _unpack_two(blocks[..., 16:80])
    return Blocks(codes.flatten(1), halves(blocks, 80), halves(blocks, 82), scales, mins)


def _pack_q3_k(blocks: Blocks) -> Tensor:
    codes = _shaped(blocks.codes, BLOCK)
    places = torch.arange(8, dtype=torch.uint8, device=codes.device).unsqueeze(1)
    third = ((codes >> 2).reshape(*codes.shape[:2], 8, 32) << places).sum(-2, dtype=torch.uint8)
    s = (_integers(blocks.scales, 16) + 32).to(torch.uint8)
    upper = (s >> 4).reshape(*s.shape[:2], 4, 4) << 2 * torch.arange(4, dtype=torch.uint8, device=s.device).unsqueeze(1)
    scales = torch.cat([nibbles(s[..., :8] & 15, s[..., 8:] & 15), upper.sum(-2, dtype=torch.uint8)], -1)
    return torch.cat([third, _pack_two(codes & 3), scales, as_bytes(blocks.d)], -1).flatten(1)


def _unpack_q3_k(packed: Tensor) -> Blocks:
    blocks = _shaped(packed, 110)
    places = torch.arange(8, dtype=torch.uint8, device=packed.device).unsqueeze(1)
    third = ((blocks[..., :32].unsqueeze(-2) >> places) & 1).flatten(2)
    codes = _unpack_two(blocks[..., 32:96]) | third << 2
    upper = (blocks[..., 104:108].unsqueeze(-2) >> 2 * places[:4]) & 3
    scales = torch.cat(parted(blocks[..., 96:104]), -1) | upper.flatten(2) << 4
    return Blocks(codes.flatten(1), halves(blocks, 108), None, scales.flatten(1).to(torch.int16) - 32)


def _pack_iq4_xs(blocks: Blocks) -> Tensor:
    codes = _shaped(blocks.codes, 8, 2, 16)
    s = (_integers(blocks.scales, 8) + 32).to(torch.uint8)
    places = 2 * torch.arange(4, dtype=torch.uint8, device=s.device)
    upper = ((s >> 4).reshape(*s.shape[:2], 2, 4) << places).sum(-1, dtype=torch.uint8)
    low = nibbles(s[..., ::2] & 15, s[..., 1::2] & 15)
    qs = nibbles(codes[..., 0, :], codes[..., 1, :]).flatten(-2)
    return torch.cat([as_bytes(blocks.d), upper, low, qs], -1).flatten(1)


def _unpack_iq4_xs(packed: Tensor) -> Blocks:
    blocks = _shaped(packed, 136)
    places = 2 * torch.arange(4, dtype=torch.uint8, device=packed.device)
    upper = ((blocks[..., 2:4].unsqueeze(-1) >> places) & 3).flatten(2)
    scales = torch.stack(parted(blocks[..., 4:8]), -1).flatten(2) | upper << 4
    codes = torch.stack(parted(_shaped(blocks[..., 8:].flatten(1), 8, 16)), -2)
    return Blocks(codes.flatten(1), halves(blocks, 0), None, scales.flatten(1).to(torch.int16) - 32)


Q2_K = BlockFormat(*sizes_of("q2_k"), steps(0, 4), (0, 15), (0, 15), True, _pack_q2_k, _unpack_q2_k)
Q3_K = BlockFormat(*sizes_of("q3_k"), steps(-4, 8), (-32, 31), None, False, _pack_q3_k, _unpack_q3_k)
Q4_K = BlockFormat(*sizes_of("q4_k"), steps(0, 16), (0, 63), (0, 63), True, _pack_q4_k, _unpack_q4_k)
Q5_K = BlockFormat(*sizes_of("q5_k"), steps(0, 32), (0, 63), (0, 63), True, _pack_q5_k, _unpack_q5_k)
Q6_K = BlockFormat(*sizes_of("q6_k"), steps(-32, 64), (-128, 127), None, False, _pack_q6_k, _unpack_q6_k)
IQ4_XS = BlockFormat(
    *sizes_of("iq4_xs"), tuple(map(float, IQ4_LEVELS)), (-32, 31), None, False, _pack_iq4_xs, _unpack_iq4_xs
)
