"""Signs of life of processes, as Linux shows them in /proc. Knows not what the processes do, and changes nothing.

A worker that neither answers nor computes may hang, or wait as it should: for its turn at the cores, which another one
has; for its tokenizer, which is a child of the same zygote; for a compiler that it started; for a disk. So it counts as
hung

- after ``HUNG`` seconds if it is stopped (by a debugger or a signal), or if *nothing* that comes from the zygote did
  anything meanwhile, and none of it waits for a disk;
- after ``HUNG_ALONE`` seconds whatever the others do: no turn is that long.

One that computes without end is never told from a long step; it ends when nobody wants its answer. Where /proc is not
there nothing hangs.
"""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

HUNG = 60.0
HUNG_ALONE = 600.0
EVERY = 2.0
"""Seconds between two looks at least: they cost milliseconds."""
GAP = 4.0
"""Seconds that count between two looks at most: where everything stood still, the worker did too."""
PROC = Path("/proc")
STATE, PARENT, MINOR_FAULTS, MAJOR_FAULTS, USER, SYSTEM = 0, 1, 7, 9, 11, 12
"""Places behind the name in /proc/PID/stat."""


@dataclass(frozen=True)
class Pulse:
    """What a process has done until now."""

    beats: tuple[int, ...]
    """Processor time and page faults of all its threads: they grow while it does anything."""
    is_stopped: bool
    parent: int


def pulse(pid: int) -> Pulse | None:
    """Return that of a process, None where it, or /proc, is not there."""
    fields = _fields(PROC / str(pid) / "stat")
    if not fields:
        return None
    beats = tuple(int(fields[place]) for place in (MINOR_FAULTS, MAJOR_FAULTS, USER, SYSTEM))
    return Pulse(beats, fields[STATE] in ("T", "t"), int(fields[PARENT]))


Tree = dict[int, Pulse | None]
"""A process with all that come from it."""


class Watch:
    """For how long a process has done nothing, as far as it was looked at."""

    def __init__(self, pid: int) -> None:
        self.quiet = 0.0
        """Seconds that the process itself, and what it started, did nothing."""
        self.silent = 0.0
        """Seconds that nothing of its parent's did anything, or that it is stopped."""
        self._pid, self._last = pid, time.monotonic()
        self._own: Tree = {}
        self._all: Tree = {}

    def look(self) -> None:
        """Count the time since the last look, at most ``GAP``; does nothing within ``EVERY`` seconds of it."""
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        passed, self._last = min(now - self._last, GAP), now
        before, self._own = self._own, _tree(self._pid)
        own = self._own[self._pid]
        if own is None or self._own != before or _waits_for_disk(self._pid):
            self.quiet = self.silent = 0.0
            self._all = {}
            return
        self.quiet += passed
        before, self._all = self._all, _tree(own.parent)
        is_silent = self._pid in before and self._all == before and not any(map(_waits_for_disk, self._all))
        self.silent = self.silent + passed if own.is_stopped or is_silent else 0.0

    @property
    def is_hung(self) -> bool:
        """Whether it should be ended."""
        return self.silent > HUNG or self.quiet > HUNG_ALONE


def _tree(pid: int) -> Tree:
    pulses: Tree = {}
    unseen = [pid]
    while unseen:
        now = unseen.pop()
        if now not in pulses:
            pulses[now] = pulse(now)
            unseen += _children(now)
    return pulses


def _children(pid: int) -> list[int]:
    """Return those that any thread of a process has started."""
    pids: list[int] = []
    with contextlib.suppress(OSError):
        for task in (PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                pids += map(int, (task / "children").read_text().split())
    return pids


def _waits_for_disk(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return any(_fields(task / "stat")[:1] == ["D"] for task in (PROC / str(pid) / "task").iterdir())
    return False


def _fields(file: Path) -> list[str]:
    """Return what stands behind a process's name, nothing where it is gone."""
    with contextlib.suppress(OSError):
        return file.read_text().rpartition(")")[2].split()
    return []
