"""What a block format of ggml says about itself, and a weight in its terms. Knows no format.

A weight [N, K] is cut along K into super-blocks, each into sub-blocks, [N, S] and [N, G] of them. Its numbers are
``scale * level(code) + offset``, where scale and offset of a sub-block are products of a 16-bit number of its
super-block and a small integer of its own; a format of one level has no such integers.

Source of all layouts: ggml's ``ggml-common.h``, and gguf-py's ``quants.py``, whose dequantizer is the tests' referee.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Blocks:
    """A weight [N, K] as a block format holds it.

    ``codes`` uint8 [N, K]. ``d`` fp16 [N, S], and ``dmin`` fp16 [N, S] where the format has offsets. ``scales`` and
    ``mins`` int16 [N, G], what multiplies them in each sub-block, None in a format of one level.
    """

    codes: Tensor
    d: Tensor
    dmin: Tensor | None = None
    scales: Tensor | None = None
    mins: Tensor | None = None

    def rows(self, rows: slice | Tensor) -> "Blocks":
        """Return some rows, as a slice or by their indices."""
        parts = (self.codes, self.d, self.dmin, self.scales, self.mins)
        return Blocks(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]

    def scale(self) -> Tensor:
        """Return the scale of each sub-block, fp32 [N, G]."""
        return _product(self.d, self.scales)

    def offset(self) -> Tensor | None:
        """Return what is added in each sub-block, fp32 [N, G]; None where nothing is."""
        if self.dmin is None:
            return None
        return self.dmin.float() if self.mins is None else -_product(self.dmin, self.mins)

    def with_codes(self, codes: Tensor) -> "Blocks":
        """Return the same grid with other codes."""
        return replace(self, codes=codes)


def _product(d: Tensor, integers: Tensor | None) -> Tensor:
    if integers is None:
        return d.float()
    per_block = integers.shape[1] // d.shape[1]
    return d.float().repeat_interleave(per_block, dim=1) * integers.float()


@dataclass(frozen=True)
class BlockFormat:
    """A block format: ``BlockFormat("q4_k", 256, 32, 144, ...)``."""

    name: str
    """Lower case, as ggml's enum has it."""
    block: int
    """Weights of a super-block."""
    sub_block: int
    """Weights that share scale and offset."""
    block_bytes: int
    levels: tuple[float, ...]
    """What each code stands for, before scale and offset; rising."""
    scale_range: tuple[int, int] | None = None
    """The integers that a sub-block's scale can be, None in a format of one level."""
    min_range: tuple[int, int] | None = None
    """The same of the offset, which is ``-dmin * min``."""
    has_offset: bool = False
    pack: Callable[[Blocks], Tensor] = lambda _: torch.empty(0, dtype=torch.float32)
    """-> uint8 [N, S * block_bytes]."""
    unpack: Callable[[Tensor], Blocks] = lambda _: Blocks(
        torch.empty(0, dtype=torch.float32), torch.empty(0, dtype=torch.float32)
    )

    @property
    def bits(self) -> int:
        """Of one code."""
        return (len(self.levels) - 1).bit_length()

    @cached_property
    def is_uniform(self) -> bool:
        """Whether its levels are steps of one."""
        return all(high - low == 1 for low, high in zip(self.levels, self.levels[1:], strict=False))

    @cached_property
    def is_symmetric(self) -> bool:
        """Whether it is integers about zero, as many below as a code has bits for, times one scale a sub-block."""
        is_even = self.is_uniform and self.levels[0] == -len(self.levels) / 2
        return is_even and self.scale_range is None and not self.has_offset

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Return the bytes of a weight [N, K], K a multiple of the block."""
        rows, width = shape
        return rows * (width // self.block) * self.block_bytes

    def values(self, codes: Tensor) -> Tensor:
        """Return the levels of codes, fp32."""
        if self.is_uniform:
            return codes.to(torch.float32) + self.levels[0]
        return torch.tensor(self.levels, dtype=torch.float32, device=codes.device)[codes.to(torch.int32)]

    def dequantize(self, blocks: Blocks) -> Tensor:
        """Return what a weight's blocks stand for, fp32 [N, K], in the order in which llama.cpp computes it."""
        rows, width = blocks.codes.shape
        values = self.values(blocks.codes).reshape(rows, -1, self.sub_block)
        dense = values * blocks.scale().unsqueeze(2)
        offset = blocks.offset()
        return (dense if offset is None else dense + offset.unsqueeze(2)).reshape(rows, width)


def halves(blocks: Tensor, at: int) -> Tensor:
    """Return the fp16 number that stands at a byte of each block, uint8 [N, S, B] -> fp16 [N, S]."""
    return blocks[..., at : at + 2].contiguous().view(torch.float16).squeeze(-1)


def as_bytes(numbers: Tensor) -> Tensor:
    """Return fp16 [N, S] as bytes, uint8 [N, S, 2]."""
    return numbers.contiguous().to(torch.float16).unsqueeze(-1).view(torch.uint8)


def nibbles(low: Tensor, high: Tensor) -> Tensor:
    """Return two codes to a byte."""
    return low | high << 4


def parted(nibbles_: Tensor) -> tuple[Tensor, Tensor]:
    """Return the low and the high nibbles of bytes."""
    return nibbles_ & 15, nibbles_ >> 4


def steps(low: int, count: int) -> tuple[float, ...]:
    """Return ``count`` whole levels from ``low`` on."""
    return tuple(float(low + i) for i in range(count))
