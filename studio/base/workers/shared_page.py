"""A page of memory that all workers have in common, made by the process they are forked from. Knows not what is in it.

A process that was started by itself has none.
"""

import fcntl
import mmap
import os
from collections.abc import Callable

_DESCRIPTORS: list[int] = []
"""Of the page; none where there is none. What is forked has it too."""
MADE = mmap.PAGESIZE - 1
"""The byte of the page that says whether it was made ready."""


def create() -> None:
    """Make the page, full of zeros: before the first fork. Linux only."""
    _DESCRIPTORS.append(os.memfd_create("quantization-studio"))
    os.ftruncate(_DESCRIPTORS[-1], mmap.PAGESIZE)


def shared_page(make_ready: Callable[[mmap.mmap], bool], size: int) -> mmap.mmap | None:
    """Return the page, of which ``size`` bytes are used; None where there is none, or it cannot be made ready, which
    the first process that asks for it does. Raises ValueError where it is too small."""
    if size > MADE:
        raise ValueError(f"{size} bytes are more than the page that workers share")
    if not _DESCRIPTORS:
        return None
    page = mmap.mmap(_DESCRIPTORS[-1], mmap.PAGESIZE)
    fcntl.lockf(_DESCRIPTORS[-1], fcntl.LOCK_EX)  # between processes; the system frees it with one that ends
    try:
        if not page[MADE]:
            page[MADE] = make_ready(page)
        return page if page[MADE] else None
    finally:
        fcntl.lockf(_DESCRIPTORS[-1], fcntl.LOCK_UN)
