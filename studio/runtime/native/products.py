"""x @ packed weight, compiled: every scheme whose codes lie in tiles, 16-bit floats too (``cpu/matmul.h``).

Knows no model.
"""

import ctypes
import logging
import mmap
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from studio.base.compiler import FUSED_FLAGS, library
from studio.base.pointers import address, optional
from studio.base.workers.shared_page import shared_page
from studio.runtime.native.structures import Weight, is_same
from studio.runtime.native.tile_codes import LANES
from studio.runtime.native.tiles import LOOKED_UP, WIDTH, Tiles

LOG = logging.getLogger(__name__)
SOURCE = Path(__file__).parent / "cpu" / "decode.c"
NO_MEMORY = 1
"""What compiled code returns for it; more is something that it does not take."""
MOST_ROWS = 4096
"""Of x in one call."""


@cache
def decoding() -> ctypes.CDLL | None:
    """Return the compiled code, built where it is not here yet; None where it cannot be."""
    lib = library(SOURCE, FUSED_FLAGS)
    if lib is not None and not is_same(lib):
        LOG.error("%s was compiled into something else: torch does the work", SOURCE.name)
        return None
    if lib is not None and take_turns(lib) is None:
        LOG.debug("no turns are taken with other processes")
    return lib


def take_turns(lib: ctypes.CDLL) -> mmap.mmap | None:
    """Let this process's products and steps wait for the turn that all workers share: on all cores one runs at a time,
    whatever process it belongs to, and one that dies in its turn holds up nobody. Return the memory it lies in, None
    where this process shares none. Raises ValueError where the memory is too small."""
    page = shared_page(lambda memory: not lib.turn_make(_place(memory)), lib.turn_size())
    if page is not None:
        _turns.append(page)  # compiled code knows its address from here on
        lib.turn_share(_place(page))
    return page


def weight_of(tiles: Tiles) -> Weight:
    """Return what points to ``tiles``, which must outlive it. Raises ValueError for arrays that are not theirs."""
    tiles.check()
    count, span = tiles.tiles, tiles.span or tiles.group
    spans, groups = (count * (tiles.width // size) * LANES for size in (span, tiles.group))
    is_wide = tiles.scale is not None and tiles.scale.dtype == torch.float32
    numbers = torch.float32 if is_wide else torch.float16
    return Weight(
        kind=tiles.kind,
        rows=tiles.rows,
        width=tiles.width,
        group=tiles.group,
        span=span,
        block=tiles.block,
        wide_scale=is_wide,
        middle=tiles.middle,
        codes=address(tiles.codes, tiles.kind.stored_as, count * tiles.kind.numbers(tiles.width)),
        scale=optional(tiles.scale, numbers, spans),
        offset=optional(tiles.offset, numbers, spans),
        scale_factor=optional(tiles.scale_factor, torch.int8, groups),
        offset_factor=optional(tiles.offset_factor, torch.int8, groups),
        zero=optional(tiles.zero, torch.uint8, groups),
        levels=optional(tiles.levels, torch.float32, LOOKED_UP),
        bias=optional(tiles.bias, torch.float32, tiles.rows),
    )


def multiply(tiles: Tiles, x: Tensor) -> Tensor:
    """Return ``x @ W.T + bias``, fp32 [T, N], of x fp32 [T, K].

    Where W's codes are integers, x counts as 16-bit integers: in each block of 16 to 64 inputs, whose largest magnitude
    is m, each errs by m / 65534 at most. Raises MemoryError when there is none, RuntimeError without compiled code,
    ValueError for x of another width.
    """
    lib = decoding()
    if lib is None:
        raise RuntimeError("there is no compiled code")
    weight = weight_of(tiles)
    count, width = x.shape
    if not tiles.width - WIDTH < width <= tiles.width:
        raise ValueError(f"{width} inputs meet a weight of {tiles.width}")
    x = x.to(torch.float32).contiguous()
    out = torch.empty(count, tiles.rows, dtype=torch.float32, device="cpu")
    for start in range(0, count, MOST_ROWS):
        rows = min(MOST_ROWS, count - start)
        places = [
            ctypes.c_void_p(address(part[start : start + rows], torch.float32, rows * size))
            for part, size in ((x, width), (out, tiles.rows))
        ]
        checked(lib.product(ctypes.byref(weight), places[0], rows, width, places[1], torch.get_num_threads()))
    return out


def look_up(tiles: Tiles, indices: Tensor) -> Tensor:
    """Return rows of W as it stands for them, fp32 [..., K filled up], of int64 indices [...].

    Each number is level times scale, plus an offset, rounded once. Raises ValueError for an index that W has not,
    RuntimeError without compiled code.
    """
    lib = decoding()
    if lib is None:
        raise RuntimeError("there is no compiled code")
    weight, flat = weight_of(tiles), indices.flatten().contiguous()
    out = torch.empty(len(flat), tiles.width, dtype=torch.float32, device="cpu")
    places = [
        ctypes.c_void_p(address(each, dtype, each.numel())) for each, dtype in ((flat, torch.int64), (out, out.dtype))
    ]
    checked(lib.dequantize_rows(ctypes.byref(weight), places[0], len(flat), places[1]))
    return out.reshape(*indices.shape, tiles.width)


def checked(failed: int) -> None:
    """Raise what the compiled code says went wrong: MemoryError, or ValueError for what it does not take."""
    if failed == NO_MEMORY:
        raise MemoryError("no memory for compiled code")
    if failed:
        raise ValueError("compiled code was given what it does not take")


def _place(memory: mmap.mmap) -> ctypes.c_void_p:
    return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))


_turns: list[mmap.mmap] = []
