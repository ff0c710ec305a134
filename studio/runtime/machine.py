"""What this machine can do, measured: how fast it reads memory and multiplies, and what memory is free.

Knows nothing of models.
"""

import logging
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from studio.base.control_group import free_in_group
from studio.base.device import device
from studio.runtime.native.arena import Arena

LOG = logging.getLogger(__name__)
SPAN = 64 << 20
"""Bytes that are read at least; twice the largest cache where that is more."""
GPU_SPAN = 2 << 30
"""The same on a GPU, whose clock is read from afar; an eighth of its free memory where that is less."""
SIDE = 1024
"""Of the square matrices that are multiplied; on a GPU eight times as much."""
SECONDS = 0.2
"""How long each is tried; the best time counts."""
TIMES = 5


@dataclass(frozen=True)
class Machine:
    """Two ceilings: no step is faster than its bytes can be read, nor than its operations can be done."""

    bandwidth: float
    """Bytes read a second."""
    operations: float
    """Of products of matrices a second, in the dtype that is fastest here, a multiplication and an addition counting
    two."""

    def limit(self, operations: float, nbytes: float) -> float:
        """Return operations a second that work with this many operations and bytes can have at most."""
        return min(self.operations, operations / nbytes * self.bandwidth)


def fast_dtype() -> torch.dtype:
    """Return what this processor multiplies fast: bf16, or fp32 where it has no instructions for bf16.

    On x86 without AVX-512 torch's products of bf16 reach an eighth of those of fp32: 4 against 31 GFLOP/s on one core
    of an AMD EPYC (Zen 3).
    """
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    is_slow = is_x86 and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    return torch.float32 if is_slow else torch.bfloat16


def measured(name: str = "cpu") -> Machine:
    """Measure what ``"cpu"`` or ``"cuda"`` can do, in under a second, and return the best that was ever measured."""
    place = torch.device(name)
    if name == "cpu":  # where weights lie: in huge pages
        numbers, side = Arena().room(max(SPAN, 2 * _largest_cache())).view(torch.float32).fill_(1), SIDE
    else:
        span = min(GPU_SPAN, torch.cuda.mem_get_info(place)[0] // 8)
        numbers, side = torch.ones(max(span, SPAN) // 4, dtype=torch.float32, device=place), 8 * SIDE
    square = torch.ones(side, side, dtype=fast_dtype() if name == "cpu" else torch.bfloat16, device=place)
    reading, multiplying = _seconds(numbers.amax, place), _seconds(lambda: square @ square, place)
    before = _KNOWN.get(name, Machine(0, 0))
    _KNOWN[name] = Machine(
        max(before.bandwidth, numbers.nbytes / reading), max(before.operations, 2 * side**3 / multiplying)
    )
    return _KNOWN[name]


_KNOWN: dict[str, Machine] = {}
_times = 0
_LOCK = threading.Lock()


def measure() -> None:
    """Measure what models run on here, in a thread, up to five times a process: while others use the machine, it seems
    slower than it is."""
    global _times

    def work() -> None:
        with _LOCK:
            for name in dict.fromkeys(("cpu", device().type)):
                try:
                    measured(name)
                except torch.OutOfMemoryError:  # models have it all; the next time, perhaps
                    LOG.info("there is no memory left to measure %s in", name)

    if _times < TIMES and not _LOCK.locked():
        _times += 1
        threading.Thread(target=work, daemon=True).start()


def known(name: str = "cpu") -> Machine | None:
    """Return the best that was measured, None before that."""
    return _KNOWN.get(name)


def _largest_cache() -> int:
    """Return the bytes of the processor's last cache, 0 where the system does not say."""
    try:
        return max(0, os.sysconf("SC_LEVEL3_CACHE_SIZE"))
    except (AttributeError, ValueError, OSError):  # no such question on this system
        return 0


def _seconds(work: Callable[[], object], place: torch.device) -> float:
    """Return the least seconds that ``work`` took."""
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        work()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        best = min(best, time.perf_counter() - began)
    return best


def available_memory() -> int:
    """Return the bytes this process may still take: the machine's, or its control group's where that is less."""
    free, allowed = int(psutil.virtual_memory().available), free_in_group()
    return free if allowed is None else min(free, allowed)
