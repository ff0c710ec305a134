"""Memory for weights that are read from end to end at every token: huge pages, for which the processor looks up far fewer
addresses. On a virtual machine that alone can double the speed of reading."""

import mmap

import torch
from torch import Tensor

ALIGNED = 64
"""Bytes: a vector's, and a cache line's."""
HUGE_PAGE = 2 << 20


class Arena:
    """Room for tensors that stay together; its pages are taken as they are filled, and given back with the last tensor."""

    def __init__(self, nbytes: int) -> None:
        """``nbytes``: at most what will be put into it."""
        size = nbytes + 2 * HUGE_PAGE
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        else:
            self._memory = mmap.mmap(-1, size)
        self._whole = torch.frombuffer(self._memory, dtype=torch.uint8)
        self._next = -self._whole.data_ptr() % HUGE_PAGE

    def put(self, tensor: Tensor | None) -> Tensor | None:
        """Return a copy of ``tensor`` that lies here; None stays None. Raises MemoryError when the arena is full."""
        if tensor is None:
            return None
        start, nbytes = self._next, tensor.nbytes
        if start + nbytes > self._whole.numel():
            raise MemoryError("the arena is full")
        self._next += -(-nbytes // ALIGNED) * ALIGNED
        place = self._whole[start : start + nbytes].view(tensor.dtype).reshape(tensor.shape)
        return place.copy_(tensor)
