"""x @ packed weight, compiled: every scheme whose codes lie in tiles, 16-bit floats too (``decode/product.h``)."""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from studio.native.build import FUSED_FLAGS, library
from studio.native.tiles import Tiles

SOURCE = Path(__file__).parent / "decode" / "decode.c"


class Weight(ctypes.Structure):
    """``Weight`` of ``product.h``."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("kind", "rows", "width", "group", "block", "wide_scale")),
        ("middle", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("codes", "scale", "zero", "levels", "bias")),
    ]


@cache
def decoding() -> ctypes.CDLL | None:
    """Return the compiled code, built where it is not here yet; None where it cannot be."""
    return library(SOURCE, FUSED_FLAGS)


def weight_of(tiles: Tiles) -> Weight:
    """Return what points to ``tiles``, which must outlive it."""

    def at(array: Tensor | None) -> int | None:
        return None if array is None else array.data_ptr()

    return Weight(
        kind=tiles.kind,
        rows=tiles.rows,
        width=tiles.width,
        group=tiles.group,
        block=tiles.block,
        wide_scale=tiles.scale is not None and tiles.scale.dtype == torch.float32,
        middle=tiles.middle,
        codes=at(tiles.codes),
        scale=at(tiles.scale),
        zero=at(tiles.zero),
        levels=at(tiles.levels),
        bias=at(tiles.bias),
    )


def multiply(tiles: Tiles, x: Tensor) -> Tensor:
    """Return ``x @ W.T + bias``, fp32 [T, N], of x fp32 [T, K].

    Where W's codes are integers, x counts as 16-bit integers: in each block of 32 or 64 inputs, whose largest magnitude
    is m, each errs by m / 65534 at most. Raises MemoryError when there is none, RuntimeError without compiled code.
    """
    lib = decoding()
    if lib is None:
        raise RuntimeError("there is no compiled code")
    x = x.float().contiguous()
    out = torch.empty(x.shape[0], tiles.rows)
    weight = weight_of(tiles)
    sizes = [ctypes.c_int32(size) for size in x.shape]
    places = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, out)]
    threads = ctypes.c_int32(torch.get_num_threads())
    if x.numel() and lib.product(ctypes.byref(weight), places[0], *sizes, places[1], threads):
        raise MemoryError("no memory for a product")
    return out
