"""Blocks of 32 with one scale each: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, and IQ4_NL, whose sixteen levels are uneven.

Knows not how scales and codes are found.
"""

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import BlockFormat, Blocks, as_bytes, halves, nibbles, parted, steps
from studio.quantization.ggml.layouts import LAYOUTS, sizes_of

BLOCK = 32
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _codes(blocks: Blocks) -> Tensor:
    return blocks.codes.reshape(len(blocks.codes), -1, BLOCK)


def _head(blocks: Blocks) -> list[Tensor]:
    return [as_bytes(blocks.d), *([] if blocks.dmin is None else [as_bytes(blocks.dmin)])]


def _pack4(blocks: Blocks) -> Tensor:
    codes = _codes(blocks)
    return torch.cat([*_head(blocks), nibbles(codes[..., :16], codes[..., 16:])], -1).flatten(1)


def _pack5(blocks: Blocks) -> Tensor:
    codes = _codes(blocks)
    low = codes & 15
    fifth = (codes >> 4).reshape(*codes.shape[:2], 4, 8)
    places = torch.arange(8, dtype=torch.uint8, device=codes.device)
    word = (fifth << places).sum(-1, dtype=torch.uint8)  # bit j of the word is the fifth bit of code j
    return torch.cat([*_head(blocks), word, nibbles(low[..., :16], low[..., 16:])], -1).flatten(1)


def _pack8(blocks: Blocks) -> Tensor:
    codes = _codes(blocks).to(torch.int16) - 128
    return torch.cat([*_head(blocks), codes.to(torch.int8).view(torch.uint8)], -1).flatten(1)


def _unpack(packed: Tensor, size: int, bits: int, has_offset: bool) -> Blocks:
    blocks = packed.reshape(len(packed), -1, size)
    at = 4 if has_offset else 2
    d, dmin = halves(blocks, 0), halves(blocks, 2) if has_offset else None
    if bits == 8:
        codes = (blocks[..., at:].contiguous().view(torch.int8).to(torch.int16) + 128).to(torch.uint8)
    else:
        codes = torch.cat(parted(blocks[..., size - 16 :]), -1)
    if bits == 5:
        places = torch.arange(8, dtype=torch.uint8, device=packed.device)
        fifth = (blocks[..., at : at + 4].unsqueeze(-1) >> places) & 1
        codes = codes | fifth.flatten(-2) << 4
    return Blocks(codes.flatten(1), d, dmin)


def _format(name: str, levels: tuple[float, ...], has_offset: bool = False) -> BlockFormat:
    bits, size = LAYOUTS[name].bits, LAYOUTS[name].block_bytes
    pack = {4: _pack4, 5: _pack5, 8: _pack8}[bits]
    return BlockFormat(
        *sizes_of(name), levels, has_offset=has_offset, pack=pack,
        unpack=lambda packed: _unpack(packed, size, bits, has_offset),
    )  # fmt: skip


Q4_0 = _format("q4_0", steps(-8, 16))
Q4_1 = _format("q4_1", steps(0, 16), has_offset=True)
Q5_0 = _format("q5_0", steps(-16, 32))
Q5_1 = _format("q5_1", steps(0, 32), has_offset=True)
Q8_0 = _format("q8_0", steps(-128, 256))
IQ4_NL = _format("iq4_nl", tuple(map(float, IQ4_LEVELS)))
