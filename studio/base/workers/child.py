"""Children of the server, as it sees them: started with a socket and limits, ended when it says so. Knows no jobs."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Protocol

from studio.base.workers.ending import Ending
from studio.base.workers.environment import environment, working_folder
from studio.base.workers.forking import ZYGOTE, started

KILL_SECONDS = 10.0
"""That a killed process may take to be gone; the system gives memory back, or waits for a disk, meanwhile."""

EXIT_GRACE_SECONDS = 5.0
"""From a socket's end to that of its process, which closes the one before it is the other."""


BACKGROUND = 10
"""Niceness of what is long: beside an answer it has a tenth of a core and whatever that leaves, so it never stands."""


@dataclass(frozen=True)
class Limits:
    """What a child may take."""

    memory: int | None = None
    """Bytes of address space beside what it begins with; None: as much as there is."""
    niceness: int = 0
    """How far it stands back where others compute, 0 to 19."""


class Child:
    """A process that called ``function(socket, *args)``; it is killed when this is collected, or by :meth:`end`."""

    def __init__(self, process: "_Process", place: socket.socket) -> None:
        self.pid, self.socket = process.pid, place
        self._process, self._lock = process, threading.Lock()
        self._ending: Ending | None = None
        self._finalize = weakref.finalize(self, _abandon, process, place)

    @property
    def has_ended(self) -> bool:
        """Whether it is there no more."""
        if self._ending is not None:
            return True
        with self._lock:
            return self._ending is not None or self._process.has_ended(0)

    def ended(self, patience: float = 0) -> Ending:
        """End it, unless it has ended, or does so within ``patience`` seconds; return how it ended."""
        with self._lock:
            if self._ending is None:
                self._finalize.detach()
                by_itself = self._process.has_ended(patience)
                self._process.kill()
                is_gone = by_itself or self._process.has_ended(KILL_SECONDS)
                code = self._process.code() if is_gone else None
                self._process.forget(is_known=is_gone)
                self.socket.close()
                self._ending = Ending(code, was_ended=not by_itself)
            return self._ending

    def end(self) -> int | None:
        """End it, where it has not ended; return its exit code, minus the signal that ended it, None if unknown."""
        return self.ended().code


def start(target: str, *args: Any, limits: Limits = Limits()) -> Child:
    """Start a child that calls ``"module:function"`` with its end of a socket and JSON-able ``args``.

    The child has of the server's environment what it needs, works in the same folder, and ends with the server. Raises
    OSError where the system has no process left.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        request: dict[str, Any] = {"op": "fork", "target": target, "args": args, "memory": limits.memory}
        request["niceness"] = limits.niceness
        request |= {"env": environment(), "folder": working_folder()}
        try:
            if sys.platform == "linux":
                return Child(_Forked(*ZYGOTE.fork(request, theirs)), ours)
            return Child(_Started(started(theirs, json.dumps(request))), ours)
        except BaseException:
            ours.close()
            raise


def warm_up() -> None:
    """Start what children come from, ahead of need: it imports for seconds, in another process."""
    if sys.platform == "linux":
        ZYGOTE.warm_up()


def are_alive() -> bool:
    """Return whether children can come: at once, for what they come from runs."""
    return sys.platform != "linux" or ZYGOTE.is_running


def restarts() -> int:
    """Return how often what children come from had to be started again."""
    return ZYGOTE.restarts


class _Process(Protocol):
    pid: int

    def has_ended(self, seconds: float) -> bool:
        """Return whether it ends within so many seconds."""

    def kill(self) -> None:
        """End it, unless it has ended."""

    def code(self) -> int | None:
        """Return the exit code of what has ended, None where nobody knows it."""

    def forget(self, is_known: bool) -> None:
        """Give back what belongs to it; ``is_known``: its code was asked for. Waits for nothing."""


class _Forked:
    """Forked by the zygote. Its number may be another's once the zygote has ended; a descriptor never is."""

    def __init__(self, pid: int, generation: int) -> None:
        self.pid, self._generation = pid, generation
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:  # it ends as nobody has the other end of its socket
            ZYGOTE.abandon(pid, generation)
            raise

    def has_ended(self, seconds: float) -> bool:
        looking = select.poll()
        looking.register(self._pidfd, select.POLLIN)
        return bool(looking.poll(seconds * 1000))

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def code(self) -> int | None:
        return ZYGOTE.reap(self.pid, self._generation)

    def forget(self, is_known: bool) -> None:
        os.close(self._pidfd)
        if not is_known:
            ZYGOTE.abandon(self.pid, self._generation)


class _Started:
    """Started from nothing."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.pid, self._process = process.pid, process

    def has_ended(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()

    def code(self) -> int | None:
        return self._process.returncode

    def forget(self, is_known: bool) -> None:
        """Nothing belongs to it."""


def _abandon(process: _Process, place: socket.socket) -> None:
    """Kill a child that nobody knows any more. May run within any call of this thread, so it waits for nothing."""
    process.kill()
    place.close()
    process.forget(is_known=False)
