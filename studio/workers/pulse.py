"""Signs of life of processes, as Linux shows them in /proc. Knows not what the processes do, and changes nothing.

A worker that neither answers nor computes may hang, or wait as it should: for its turn at the cores, which another one
has; for its tokenizer, which is a child of the same zygote; for a disk. So it counts as hung

- after ``HUNG`` seconds if it is stopped (by a debugger or a signal), or if *none* of the zygote's children did
  anything meanwhile and none of its threads waits for a disk;
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
GAP = 2.0
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


class Watch:
    """For how long a process has done nothing, as far as it was looked at."""

    def __init__(self, pid: int) -> None:
        self.quiet = 0.0
        """Seconds that the process itself did nothing."""
        self.silent = 0.0
        """Seconds that none of its parent's children did anything, or that it is stopped."""
        self._pid, self._last = pid, time.monotonic()
        self._own: Pulse | None = None
        self._all: dict[int, Pulse | None] = {}

    def look(self) -> None:
        """Count the time since the last look, at most ``GAP``."""
        now = time.monotonic()
        passed, self._last = min(now - self._last, GAP), now
        own = pulse(self._pid)
        every = {pid: pulse(pid) for pid in _children(own.parent)} if own is not None else {}
        is_quiet = own is not None and own == self._own and not _waits_for_disk(self._pid)
        is_silent = is_quiet and own is not None and (own.is_stopped or (self._pid in every and every == self._all))
        self.quiet = self.quiet + passed if is_quiet else 0.0
        self.silent = self.silent + passed if is_silent else 0.0
        self._own, self._all = own, every

    @property
    def is_hung(self) -> bool:
        """Whether it should be ended."""
        return self.silent > HUNG or self.quiet > HUNG_ALONE


def _children(pid: int) -> list[int]:
    """Return those of a process with one thread."""
    with contextlib.suppress(OSError):
        return [int(found) for found in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]
    return []


def _waits_for_disk(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return any(_fields(task / "stat")[:1] == ["D"] for task in (PROC / str(pid) / "task").iterdir())
    return False


def _fields(file: Path) -> list[str]:
    """Return what stands behind a process's name, nothing where it is gone."""
    with contextlib.suppress(OSError):
        return file.read_text().rpartition(")")[2].split()
    return []
