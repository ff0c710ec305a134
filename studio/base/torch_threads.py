"""On how many threads torch computes, for a while. Knows nothing of what is computed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Let torch compute on ``count`` threads, None for as many as it does anyway, and give how many these are.

    It is the whole process that does: others of its threads, too.
    """
    before = torch.get_num_threads()
    if count is None or count == before:
        yield before
        return
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)
