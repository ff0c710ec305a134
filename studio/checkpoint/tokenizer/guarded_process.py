"""A process of its own for what must be ended when it takes too long or too much. Knows not what it is asked for.

Both sides of its socket: the server's, :class:`Guarded`, and the child's, :func:`serve`. Messages are raw bytes behind
a short head, and one is under way at a time, so that an answer of a few bytes costs two system calls a side. The child
ends itself when a request has had its processor time: a machine that others use too makes nothing fail that is sound.
"""

import os
import resource
import signal
import socket
import struct
import sys
import tempfile
import weakref
from collections.abc import Callable
from enum import IntEnum
from itertools import pairwise
from typing import Any, Literal

from studio.base.errors import ProcessError
from studio.base.workers import EXIT_GRACE_SECONDS, Child, Limits, start

REQUEST = struct.Struct("<IIB")
"""Bytes that follow, milliseconds of processor time, and what is asked."""
ANSWER = struct.Struct("<IB")
"""Bytes that follow, and how it went."""
MEMORY = 1_000_000_000
"""Bytes of address space that the child may take beside what it begins with."""
PATIENCE = 5
"""How many times its processor time a request may take where the machine is busy; and a second more."""
WROTE = 1 << 20
"""Bytes that the child may write anywhere: what the system says of its end, and nothing else."""
READ = 1 << 16


class Went(IntEnum):
    """How a request went."""

    WELL = 0
    WRONG = 1
    """The answer is a reason, in words."""
    REFUSED = 2
    """The answer is an error for the user, as JSON."""
    UNKNOWN = 3
    """The child does not know what is spoken of: another one did."""
    MEMORY = 4


class EndedError(Exception):
    """The child has ended, or was ended, before it answered."""

    def __init__(
        self,
        why: Literal["time", "memory", "size", "crash", "lost"],
        reason: str = "",
        error: ProcessError | None = None,
    ) -> None:
        """``lost``: not by what it was asked for; ``error`` says more."""
        super().__init__(why, reason)
        self.why, self.reason, self.error = why, reason, error


class Guarded:
    """A child that answers requests; once it has ended it stays so. Not for several threads at once."""

    def __init__(self, target: str, *args: Any) -> None:
        """Start ``"module:function"``, which gets a socket and ``args``. Raises OSError where it cannot."""
        self._child: Child = start(target, *args, limits=Limits(memory=MEMORY))
        self._socket = self._child.socket
        self._seconds = 0.0
        self._words: int | None = None
        """What the child's last words are written to."""
        self._forget_words: Callable[[], object] = lambda: None

    def ask(self, kind: int, body: bytes, seconds: float, most: int) -> tuple[Went, bytes]:
        """Return how it went, and the answer of at most ``most`` bytes, within ``seconds`` of processor time.

        Raises EndedError. Whatever else comes between question and answer ends the child too: its answer would be taken
        for that to the next question.
        """
        try:
            self._wait_for(seconds * PATIENCE + 1)
            self._socket.sendall(REQUEST.pack(len(body), int(seconds * 1000), kind) + body)
            if self._words is None:
                self._words = self._place_of_words()
                self._forget_words = weakref.finalize(self, os.close, self._words)
            found = _received(self._socket, ANSWER, most)
            went = Went(found[ANSWER.size - 1])
            if went is Went.MEMORY:
                raise EndedError("memory")
        except (BlockingIOError, TimeoutError):
            self.end()
            raise EndedError("time") from None
        except (OSError, EOFError):
            raise self._ending() from None
        except BaseException:
            self.end()
            raise
        return went, found[ANSWER.size :]

    def end(self) -> None:
        """End the child, which also ends when this is collected."""
        self._child.end()
        self._forget_words()

    def _wait_for(self, seconds: float) -> None:
        """Let every call on the socket take so long; the system keeps count, so that nothing is asked a second time."""
        if seconds != self._seconds:
            self._seconds = seconds
            limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self._socket.setsockopt(socket.SOL_SOCKET, option, limit)

    def _place_of_words(self) -> int:
        message, fds, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not message or not fds:
            raise EOFError
        return fds[0]

    def _ending(self) -> EndedError:
        """Return why the child has ended by itself."""
        ending = self._child.ended(EXIT_GRACE_SECONDS)
        words = b"" if self._words is None else os.pread(self._words, READ, 0)
        self.end()
        said = words.decode(errors="replace").strip().splitlines()
        if ending.was_time:
            return EndedError("time")
        if ending.was_memory or any("memory allocation of" in line or "MemoryError" in line for line in said):
            return EndedError("memory")
        if ending.was_orphaned or ending.was_ended:
            return EndedError("lost", error=ending.error())
        reason = next((after for line, after in pairwise(said) if "panicked at" in line), "")
        return EndedError("crash", reason or ending.reason)


def _received(place: socket.socket, head: struct.Struct, most: int) -> bytes:
    """Return a message with its head. Raises EOFError where the other side is gone, EndedError where it is too long."""
    found = place.recv(READ)
    while len(found) < head.size or len(found) < (size := head.size + head.unpack_from(found)[0]):
        if len(found) >= head.size and size > most:
            raise EndedError("size", f"{size:,} bytes")
        more = place.recv(1 << 20)
        if not more:
            raise EOFError
        found += more
    return found


def serve(place: socket.socket, answer: Callable[[int, bytes], tuple[Went, bytes]]) -> None:
    """Answer requests until the other side is gone: the life of the child."""
    _hold_still(place)
    while True:
        try:
            found = _received(place, REQUEST, sys.maxsize)
        except EOFError:
            return
        _, milliseconds, kind = REQUEST.unpack_from(found)
        signal.setitimer(signal.ITIMER_PROF, milliseconds / 1000)
        try:
            went, body = answer(kind, found[REQUEST.size :])
        except MemoryError:
            went, body = Went.MEMORY, b""
        except BaseException as error:  # a panic of Rust's is no Exception
            went, body = Went.WRONG, _words_of(error).encode(errors="replace")
        signal.setitimer(signal.ITIMER_PROF, 0)
        place.sendall(ANSWER.pack(len(body), went) + body)


def _words_of(error: BaseException) -> str:
    """Return a library's reason: its first line, with the kind of error where the words alone say little."""
    words = (str(error).strip().splitlines() or [""])[0]
    return words if len(words.split()) > 2 else f"{type(error).__name__}: {words}".removesuffix(": ")


def _hold_still(place: socket.socket) -> None:
    """Let the child neither be interrupted nor write files; send where its last words go."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    os.environ["RUST_BACKTRACE"] = "0"
    with tempfile.TemporaryFile() as words:
        os.dup2(words.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (WROTE, WROTE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        socket.send_fds(place, [b"\0"], [words.fileno()])
