"""The zygote as the server sees it: asked for a fork, or for how a child ended. Knows not what children are for."""

import atexit
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from typing import Any

from studio.base.workers.environment import environment

MESSAGE = 1 << 18
"""Bytes of a request at most: the environment is in it."""
ROOM = 2 * MESSAGE
"""Bytes of requests that are under way."""
TRIES = 2
"""A zygote that has ended is started again once."""
IMPORTING = 300.0
"""Seconds until a zygote answers for the first time: on a busy machine with slow disks it imports for minutes."""
ANSWERING = 60.0
"""Seconds until it answers from then on, which takes it milliseconds."""


class Zygote:
    """The process that forks, started when first needed and again where it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._generation = 0
        """How many there were: a child of an earlier one is not known to this one, though its number may be."""
        self._set_aside: list[tuple[subprocess.Popen[bytes] | None, socket.socket]] = []
        """Zygotes that did not answer in time. To end them would end their children, which may be sound."""
        self._abandoned: deque[tuple[int, int]] = deque()
        """Killed, with their generation, and to be waited for when there is something to ask anyway."""
        os.register_at_fork(after_in_child=self._forget)

    @property
    def is_running(self) -> bool:
        """Whether it is there; waits for nothing."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def restarts(self) -> int:
        """How often it was started again since the first time."""
        return max(0, self._generation - 1)

    def warm_up(self) -> None:
        """Start it, ahead of need."""
        with self._lock:
            self._running()

    def fork(self, request: dict[str, Any], passed: socket.socket) -> tuple[int, int]:
        """Return the number of a new child, and of the zygote that has it. Raises OSError."""
        with contextlib.suppress(IndexError):  # another thread may be doing the same
            while True:
                self.reap(*self._abandoned.popleft())
        message = json.dumps(request).encode()
        if len(message) > MESSAGE:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        with self._lock:
            for _ in range(TRIES):
                answer = self._answer(self._running(), message, [passed.fileno()])
                if answer:
                    return _understood(answer)["pid"], self._generation
                self._stop()
        raise OSError(errno.ECHILD, "it ends at once")

    def reap(self, pid: int, generation: int) -> int | None:
        """Return the exit code of a child that has ended, None where only an earlier zygote would know."""
        message = json.dumps({"op": "reap", "pid": pid}).encode()
        with self._lock, contextlib.suppress(OSError):
            if self._control is not None and generation == self._generation:
                answer = self._answer(self._control, message, [])
                if answer:
                    code: int | None = _understood(answer)["code"]
                    return code
        return None

    def abandon(self, pid: int, generation: int) -> None:
        """Let a killed child be waited for some time; waits for nothing itself."""
        self._abandoned.append((pid, generation))

    def close(self) -> None:
        """End it, and with it its children."""
        with self._lock:
            self._stop()
            for process, control in self._set_aside:
                _end(process, control)
            self._set_aside.clear()

    def inherit(self, control: socket.socket) -> None:
        """Ask the zygote that this process comes from, over a socket of its own."""
        self._control = _prepared(control)
        self._control.settimeout(ANSWERING)

    def _answer(self, control: socket.socket, message: bytes, fds: list[int]) -> bytes:
        """Return what it answers, nothing where it has ended. Raises OSError, also where it takes too long: its answer
        would be taken for that to the next question, so another one is asked from then on."""
        try:
            socket.send_fds(control, [message], fds)
            answer = control.recv(MESSAGE)
        except TimeoutError as error:
            self._set_aside.append((self._process, control))
            self._process = self._control = None
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error
        except (BrokenPipeError, ConnectionResetError):
            return b""
        control.settimeout(ANSWERING)
        return answer

    def _running(self) -> socket.socket:
        if self._control is not None and (self._process is None or self._process.poll() is None):
            return self._control
        self._stop()
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = started(theirs)
        except BaseException:
            ours.close()
            raise
        self._control = _prepared(ours)
        self._control.settimeout(IMPORTING)
        self._generation += 1
        return ours

    def _stop(self) -> None:
        if self._control is not None:
            _end(self._process, self._control)
        self._process = self._control = None

    def _forget(self) -> None:
        """Leave it to the process that started it: this one is a fork of that."""
        self._lock = threading.Lock()
        self._process = self._control = None
        self._set_aside = []
        self._abandoned = deque()


ZYGOTE = Zygote()
atexit.register(ZYGOTE.close)


def started(theirs: socket.socket, *args: str) -> "subprocess.Popen[bytes]":
    """Start a zygote, or with a request in ``args`` a child, from nothing. Raises OSError."""
    return subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-m", "studio.base.workers.zygote", str(theirs.fileno()), *args],
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,  # Ctrl-C is for the server, which ends its children itself
    )


def _end(process: "subprocess.Popen[bytes] | None", control: socket.socket) -> None:
    control.close()
    if process is not None:
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()


def _prepared(control: socket.socket) -> socket.socket:
    control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    return control


def _understood(answer: bytes) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(answer)
    if "error" in reply:
        raise OSError(reply["error"], os.strerror(reply["error"]))
    return reply
