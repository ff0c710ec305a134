"""What every row is measured with: medians, memory and disk bandwidth, a stage run to its end."""

import mmap
import os
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

RUNS = 5
BLOCK = 16 << 20
"""Bytes read or written at once."""


def timed(work: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median seconds of ``work``, after one run that does not count."""
    work()
    seconds = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def memory_bandwidth() -> float:
    """Return the bytes a second that two threads read, far beyond any cache."""
    parts = [np.ones(1 << 26, np.int64) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        return sum(part.nbytes for part in parts) / timed(lambda: list(pool.map(np.max, parts)))


def drop_cache(file: Path) -> None:
    """Let the system forget what it holds of a file."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # what is not written yet would stay
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def reading(files: list[Path]) -> float:
    """Return the seconds that reading files takes, one after the other, past the system's cache."""
    buffer = mmap.mmap(-1, BLOCK)  # O_DIRECT asks for whole pages
    begun = time.perf_counter()
    for file in files:
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
        try:
            while os.readv(descriptor, [buffer]):
                pass
        finally:
            os.close(descriptor)
    return time.perf_counter() - begun


def writing(file: Path, nbytes: int) -> float:
    """Return the seconds until the disk has a new file of ``nbytes``; the file is removed."""
    block = os.urandom(BLOCK)
    begun = time.perf_counter()
    with file.open("wb") as out:
        for start in range(0, nbytes, BLOCK):
            out.write(block[: nbytes - start])
        out.flush()
        os.fsync(out.fileno())
    seconds = time.perf_counter() - begun
    file.unlink()
    return seconds


def machine() -> str:
    """Return the processor's name and how many cores there are."""
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores of {found[1] if found else 'a processor without a name'}"
