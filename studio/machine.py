"""What this machine can do, measured once a process: how fast it reads memory and multiplies, and what memory is free.

Knows nothing of models.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import torch

from studio.native.arena import Arena

SPAN = 256 << 20
"""Bytes that are read: many times what any cache of a processor holds."""
SIDE = 1024
"""Of the square bf16 matrices that are multiplied; on a GPU eight times as much."""
SECONDS = 0.3
"""How long each is tried; the best time counts, for others use the machine too."""


@dataclass(frozen=True)
class Machine:
    """Two ceilings: no step is faster than its bytes can be read, nor than its operations can be done."""

    bandwidth: float
    """Bytes read a second."""
    operations: float
    """Of bf16 matrix products a second, a multiplication and an addition counting two."""

    def limit(self, operations: float, nbytes: float) -> float:
        """Return operations a second that work with this many operations and bytes can have at most."""
        return min(self.operations, operations / nbytes * self.bandwidth)


@cache
def measured(device: str = "cpu") -> Machine:
    """Measure what ``"cpu"`` or ``"cuda"`` can do: half a second, once."""
    place = torch.device(device)
    arena = torch.ones(SPAN // 4) if device == "cpu" else torch.ones(4 * SPAN, device=place)
    numbers = Arena().put(arena) if device == "cpu" else arena
    side = SIDE if device == "cpu" else 8 * SIDE
    square = torch.ones(side, side, dtype=torch.bfloat16, device=place)
    reading, multiplying = _seconds(numbers.amax, place), _seconds(lambda: square @ square, place)
    return Machine(numbers.nbytes / reading, 2 * side**3 / multiplying)


_KNOWN: dict[str, Machine] = {}
_STARTED: set[str] = set()


def measure(device: str = "cpu") -> None:
    """Start measuring in a thread, once."""

    def work() -> None:
        _KNOWN[device] = measured(device)

    if device not in _STARTED:
        _STARTED.add(device)
        threading.Thread(target=work, daemon=True).start()


def known(device: str = "cpu") -> Machine | None:
    """Return what was measured, None before that."""
    return _KNOWN.get(device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the least seconds that ``work`` took."""
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return best


def available_memory() -> int:
    """Return the bytes this process may still take: the machine's, or its control group's where that is less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, int(limit) - used) if limit.isdecimal() else free
