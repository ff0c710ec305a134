"""How often a page is told of what goes on. Knows nothing of what that is."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Step = TypeVar("Step")
PACE = 0.1
"""Seconds between repaints while something runs: often enough to live, seldom enough to cost nothing."""
MAP_PACE = 0.4
"""The same for the whole map."""


MAKE_PACE = 0.3
"""The same for work of a minute."""


def paced(steps: Iterable[Step], pace: float = PACE) -> Iterator[Step]:
    """Yield the first step, then the newest one at most every ``pace`` seconds, and the last."""
    shown = float("-inf")
    waiting: Step | None = None
    for step in steps:
        waiting = step
        if time.monotonic() - shown >= pace:
            yield step
            shown, waiting = time.monotonic(), None
    if waiting is not None:
        yield waiting
