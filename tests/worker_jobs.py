"""Functions that the tests of workers let a worker run: at the top level, so that it finds them by name."""

import ctypes
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from studio.base.errors import ResourceError
from studio.base.workers.channel import Channel

PATIENCE = 300
"""Seconds for what takes milliseconds: machines that test are busy."""


@dataclass
class Counter:
    value: int = 0


def pid() -> int:
    return os.getpid()


def niceness() -> int:
    return os.nice(0)


def said_niceness() -> Generator[int, None, None]:
    yield os.nice(0)


def environment(name: str) -> str | None:
    return os.environ.get(name)


def folder() -> Path:
    return Path.cwd()


def raised(counter: Counter, by: int) -> int:
    counter.value += by
    return counter.value


def counted(count: int) -> Generator[int, None, str]:
    yield from range(count)
    return "done"


def noted(file: str) -> Generator[int, None, None]:
    """Count for ever; leave a file when closed."""
    try:
        step = 0
        while True:
            yield step
            step += 1
    finally:
        with open(file, "w") as stream:  # noqa: PTH123 - a plain name came
            stream.write("closed")


def refused() -> None:
    raise ResourceError("memory", need="2 GB", free="1 GB")


def cut_short() -> None:
    raise EOFError("a file is cut short")


class Odd(Exception):  # noqa: N818 - made for one test
    """An error that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("odd")
        self.socket = socket.socket()


def odd() -> None:
    raise Odd


def overrun() -> None:
    """Do what a fault in native code does."""
    ctypes.string_at(0)


def killed() -> None:
    """Be ended as the system does where memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def overrun_later() -> Generator[int, None, None]:
    yield 1
    overrun()


def stopped() -> None:
    """Stand still as under a debugger."""
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)  # this thread may stop a moment later


def locked() -> None:
    """Wait for what never comes."""
    threading.Event().wait()


def standing(place: socket.socket) -> None:
    """Not a job: a plain child that stands still."""
    stopped()


def computed(seconds: float) -> str:
    """Compute without a word."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return "computed"


def unanswered() -> None:
    """Lose the socket that is to be answered on, as an answer that fails half-way does."""
    for found in gc.get_objects():
        if isinstance(found, Channel):
            found.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def threadless() -> None:
    """Let this process have no further thread, as the system does where there are too many."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threading.Thread.start = start  # type: ignore[method-assign]


class Mute(Exception):  # noqa: N818 - made for one test
    """An error whose words cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no words")

    def __reduce__(self) -> "str | tuple[object, ...]":
        raise ValueError("no pickle")


def mute() -> None:
    raise Mute


def unpicklable() -> object:
    return lambda: None


def failing_later() -> Generator[int, None, None]:
    yield 1
    cut_short()


def slept(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def hoarded(nbytes: int) -> int:
    return len(bytearray(nbytes))


def echoed(place: socket.socket, word: str) -> None:
    """Not a job: what a plain child does."""
    while message := place.recv(100):
        place.sendall(word.encode() + message)


def hoarding(place: socket.socket) -> None:
    try:
        bytearray(1 << 30)
    except MemoryError:
        place.sendall(b"refused")


def turn_taken(count: int) -> float:
    """Multiply ``count`` times through compiled code; return the seconds that took."""
    import torch

    from studio.runtime.native.products import _turns, multiply
    from studio.runtime.native.tiling import tiles_of_floats

    tiles = tiles_of_floats(torch.ones(64, 64, dtype=torch.bfloat16))
    began = time.perf_counter()
    for _ in range(count):
        multiply(tiles, torch.ones(1, 64, dtype=torch.float32))
    assert len(_turns) == 1, "a worker shares a turn with the others"
    return time.perf_counter() - began
