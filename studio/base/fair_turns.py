"""Long jobs of several visitors on one machine: each works for a moment, then it is the next one's turn.

Knows nothing of what the jobs do. The turn is never held while a job says something, so a visitor who listens slowly,
or has left, keeps nobody waiting.
"""

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

TURN = 0.1
"""Seconds a job works before it lets another go on; one step of a job is never cut."""


class Turns:
    """A line of jobs, of which one works."""

    def __init__(self) -> None:
        self.jobs = 0
        """How many have begun and not ended."""
        self._line: deque[object] = deque()
        self._moved = threading.Condition()

    def shared(self, steps: Generator[Item, None, Result]) -> Generator[Item, None, Result]:
        """Yield what ``steps`` yields, a turn's worth at once, and return its result; closing this closes it."""
        with self._moved:
            self.jobs += 1
        try:
            while True:
                items: list[Item] = []
                ended: StopIteration | None = None
                with self._turn():
                    until = time.monotonic() + TURN
                    try:
                        items.append(next(steps))
                        while time.monotonic() < until:
                            items.append(next(steps))
                    except StopIteration as finished:
                        ended = finished
                yield from items
                if ended is not None:
                    result: Result = ended.value
                    return result
        finally:
            steps.close()
            with self._moved:
                self.jobs -= 1

    @property
    def waiting(self) -> int:
        """How many are in line now, the one that works included."""
        return len(self._line)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait in line, first come, first served: a lock alone would let the one that just worked go on."""
        ticket = object()
        with self._moved:
            self._line.append(ticket)
            self._moved.wait_for(lambda: self._line[0] is ticket)
        try:
            yield
        finally:
            with self._moved:
                self._line.popleft()
                self._moved.notify_all()
