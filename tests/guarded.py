"""Tensors that end where memory ends: the first byte behind them is on a page that nobody may touch."""

import ctypes
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
NOTHING = 0
"""What may be done with a guard page."""


class Guarded:
    """Memory for tensors, given back at once by :meth:`close`, when none of them may be used any more."""

    def __init__(self) -> None:
        self._places: list[tuple[int, int]] = []

    def empty(self, *size: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor of nonsense that a guard page follows, and one comes before, as near as whole pages allow."""
        nbytes = prod(size) * dtype.itemsize
        pages = -(-max(nbytes, 1) // mmap.PAGESIZE)
        room = (pages + 2) * mmap.PAGESIZE
        start = LIBC.mmap(None, room, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        assert start not in (None, ctypes.c_void_p(-1).value)
        self._places.append((start, room))
        end = start + room - mmap.PAGESIZE
        for page in (start, end):
            assert LIBC.mprotect(page, mmap.PAGESIZE, NOTHING) == 0
        ctypes.memset(start + mmap.PAGESIZE, 0xFF, pages * mmap.PAGESIZE)  # NaN in every float format
        memory = (ctypes.c_char * nbytes).from_address(end - nbytes)
        return torch.frombuffer(memory, dtype=dtype).reshape(size)

    def zeros(self, *size: int, dtype: torch.dtype) -> Tensor:
        return self.empty(*size, dtype=dtype).zero_()

    def copy(self, tensor: Tensor) -> Tensor:
        """Return the same numbers at a guard page."""
        return self.empty(*tensor.shape, dtype=tensor.dtype).copy_(tensor)

    def close(self) -> None:
        for start, room in self._places:
            LIBC.munmap(start, room)
        self._places.clear()


@contextmanager
def guarded(patch: Any) -> Iterator[Guarded]:
    """Let ``torch.empty`` and ``torch.zeros`` give such memory; ``patch`` is pytest's monkeypatch."""
    memory = Guarded()

    def instead(plain: Callable[..., Tensor], made: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def make(*size: Any, **named: Any) -> Tensor:
            is_array = size and all(type(each) is int and each > 0 for each in size) and named.get("device") == "cpu"
            return made(*size, dtype=named["dtype"]) if is_array else plain(*size, **named)

        return make

    with patch.context() as inside:
        inside.setattr(torch, "zeros", instead(torch.zeros, memory.zeros))
        inside.setattr(torch, "empty", instead(torch.empty, memory.empty))
        yield memory
    memory.close()
