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
    os.ftruncate(_DESCRIPTORS[0], mmap.PAGESIZE)


def common_page(make_ready: Callable[[mmap.mmap], object]) -> mmap.mmap | None:
    """Return the page, made ready by the first process that asks for it; None where there is none."""
    if not _DESCRIPTORS:
        return None
    (descriptor,) = _DESCRIPTORS
    page = mmap.mmap(descriptor, mmap.PAGESIZE)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)  # between processes; the system frees it with one that ends
    try:
        if not page[MADE]:
            make_ready(page)
            page[MADE] = 1
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)
    return page
