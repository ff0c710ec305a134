"""Children of the server, as it sees them: started with a socket and limits, ended when it says so. Knows no jobs."""

import atexit
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import studio

SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE", re.IGNORECASE)
"""Names in the environment whose values no child needs."""
ROOM = 1 << 19
"""Bytes of a request that are under way: the whole environment is in it."""
TRIES = 2
"""A zygote that has ended is started again once."""


@dataclass(frozen=True)
class Limits:
    """What a child may take."""

    memory: int | None = None
    """Bytes of address space beside what it begins with; None: as much as there is."""


class Child:
    """A process that called ``function(socket, *args)``; it is killed when this is collected, or by :meth:`end`."""

    def __init__(self, pid: int, place: socket.socket, parent: "_Zygote | subprocess.Popen[bytes]") -> None:
        self.pid, self.socket = pid, place
        self._parent, self._lock = parent, threading.Lock()
        self._has_ended = False
        self._status: int | None = None
        # A number may be another process's once the zygote that had this child has ended; a descriptor never is.
        self._pidfd = os.pidfd_open(pid) if isinstance(parent, _Zygote) else None
        self._finalize = weakref.finalize(self, _abandon, pid, self._pidfd, place, parent)

    def end(self) -> int | None:
        """End it, where it has not ended; return its exit code, minus the signal that ended it, None if unknown."""
        with self._lock:
            if not self._has_ended:
                self._has_ended = True
                self._finalize.detach()
                _kill(self._pidfd, self._parent)
                if isinstance(self._parent, _Zygote):
                    (self._status,) = self._parent.reap([self.pid])
                else:
                    self._status = self._parent.wait()
                self.socket.close()
            return self._status


def _abandon(pid: int, pidfd: int | None, place: socket.socket, parent: "_Zygote | subprocess.Popen[bytes]") -> None:
    """Kill a child that nobody knows any more. May run within any call of this thread, so it waits for nothing."""
    _kill(pidfd, parent)
    place.close()
    if isinstance(parent, _Zygote):
        parent.abandoned.append(pid)


def _kill(pidfd: int | None, parent: "_Zygote | subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        if pidfd is None:
            assert not isinstance(parent, _Zygote)
            parent.kill()
        else:
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def start(target: str, *args: Any, limits: Limits = Limits()) -> Child:
    """Start a child that calls ``"module:function"`` with its end of a socket and JSON-able ``args``.

    The child has the server's environment without secrets, and ends with the server. Raises OSError where the system
    has no process left.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        request = {"op": "fork", "target": target, "args": args, "memory": limits.memory, "env": _environment()}
        try:
            if sys.platform == "linux":
                pid = _ZYGOTE.ask(request, theirs)["pid"]
                return Child(pid, ours, _ZYGOTE)
            process = _started(theirs, json.dumps(request))
            return Child(process.pid, ours, process)
        except BaseException:
            ours.close()
            raise


def warm_up() -> None:
    """Start what children come from, ahead of need: it imports for seconds, in another process."""
    if sys.platform == "linux":
        _ZYGOTE.warm_up()


class _Zygote:
    """The process that forks, started when first needed and again where it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.abandoned: deque[int] = deque()
        """Killed, and to be waited for when there is something to ask anyway."""
        os.register_at_fork(after_in_child=self._forget)

    def warm_up(self) -> None:
        with self._lock:
            self._running()

    def ask(self, request: dict[str, Any], passed: socket.socket | None = None) -> dict[str, Any]:
        """Return its answer. Raises OSError where it cannot be had."""
        if self.abandoned and request["op"] == "fork":
            self.reap([self.abandoned.popleft() for _ in range(len(self.abandoned))])
        message = json.dumps(request).encode()
        with self._lock:
            for attempt in range(TRIES):
                control = self._running()
                try:
                    socket.send_fds(control, [message], [] if passed is None else [passed.fileno()])
                    answer = control.recv(1 << 16)
                except OSError:
                    if attempt == TRIES - 1:
                        raise
                    answer = b""
                if answer:
                    found: dict[str, Any] = json.loads(answer)
                    return found
                self._stop()
        raise OSError("no process could be started")

    def reap(self, pids: Sequence[int]) -> list[int | None]:
        """Return the exit codes of children that were killed, None where they went with an earlier zygote."""
        try:
            statuses: list[int | None] = self.ask({"op": "reap", "pids": list(pids)})["statuses"]
        except OSError:
            return [None for _ in pids]
        return statuses

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _running(self) -> socket.socket:
        if self._control is not None and (self._process is None or self._process.poll() is None):
            return self._control
        self._stop()
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        with theirs:
            self._process = _started(theirs)
        self._control = ours
        return ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()
        self._process = self._control = None

    def _forget(self) -> None:
        """Leave it to the process that started it: this one is a fork of that."""
        self._lock = threading.Lock()
        self._process = self._control = None

    def inherit(self, control: socket.socket) -> None:
        """Ask the zygote that this process comes from, over a socket of its own."""
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        self._control = control


_ZYGOTE = _Zygote()
atexit.register(_ZYGOTE.close)
inherit = _ZYGOTE.inherit


def _started(theirs: socket.socket, *args: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-W", "ignore", "-m", "studio.workers.zygote", str(theirs.fileno()), *args]
    return subprocess.Popen(
        command,
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        env=_environment(),
        start_new_session=True,  # Ctrl-C is for the server, which ends its children itself
    )


def _environment() -> dict[str, str]:
    """Return the environment of children: without secrets, and with this package to be found from any folder."""
    kept = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
    here = str(Path(studio.__file__).parent.parent)
    paths = [path for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path and path != here]
    return {**kept, "PYTHONPATH": os.pathsep.join([here, *paths])}
