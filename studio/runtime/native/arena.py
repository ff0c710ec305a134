"""Memory for weights that are read from end to end at every token: huge pages, for which the processor looks up far
fewer addresses. On a virtual machine that alone can double the speed of reading. Knows nothing of what lies in it.
"""

import mmap

import torch
from torch import Tensor

ALIGNED = 64
"""Bytes: a vector's, and a cache line's."""
HUGE_PAGE = 2 << 20
CHUNK = 128 << 20
"""Bytes asked of the system at once, and taken as they are filled."""


class Arena:
    """Room for tensors that stay together; given back with the last of them."""

    def __init__(self) -> None:
        self._chunk = torch.empty(0, dtype=torch.uint8, device="cpu")
        self._next = 0

    def put(self, tensor: Tensor) -> Tensor:
        """Return a copy of ``tensor`` that lies here."""
        return self.room(tensor.nbytes).view(tensor.dtype).reshape(tensor.shape).copy_(tensor)

    def room(self, nbytes: int) -> Tensor:
        """Return that many bytes of this memory, uint8, to be filled."""
        if self._next + nbytes > self._chunk.numel():
            self._chunk = _chunk(max(nbytes, CHUNK))
            self._next = -self._chunk.data_ptr() % HUGE_PAGE
        start = self._next
        self._next += -(-nbytes // ALIGNED) * ALIGNED
        return self._chunk[start : start + nbytes]


def _chunk(nbytes: int) -> Tensor:
    """Return uint8 with room for ``nbytes`` from an address that huge pages begin at."""
    size = -(-nbytes // HUGE_PAGE) * HUGE_PAGE + HUGE_PAGE
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8, device="cpu")
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)
