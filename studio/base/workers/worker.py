"""Workers as the server sees them: processes that run functions of ours, watched, and replaced where they end.

:class:`ProcessWorker` is one; :class:`Here` does the same within this process, where none can be started or none is
wanted. Knows no model.
"""

import contextlib
import copy
import itertools
import logging
import socket
import struct
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Generic, ParamSpec, TypeVar

from studio.base.errors import Cancelled, ProcessError
from studio.base.settings import settings
from studio.base.workers.channel import Channel, Gone
from studio.base.workers.child import BACKGROUND, EXIT_GRACE_SECONDS, Child, Limits, start
from studio.base.workers.ending import no_process
from studio.base.workers.pulse import Watch
from studio.base.workers.serving import Answer, Ask

LOG = logging.getLogger(__name__)
POLL_SECONDS = 0.5
"""Between looks at whether an answer is still wanted, and whether the worker works on it."""
UNWANTED_IDLE_SECONDS = 10.0
"""Without an answer that nobody wants any more, after which a worker that does nothing is ended."""
UNWANTED_BUSY_SECONDS = 30.0
"""The same for one that computes: a step of a sound one may be long."""
STALLED_SECONDS = 60
"""That a message which has begun may stand still."""
IsUnwanted = Callable[[], bool]
"""Whether the answer that is waited for is wanted no more: asked every ``POLL_SECONDS`` by the thread that waits."""
Kept = TypeVar("Kept")
Item = TypeVar("Item")
Result = TypeVar("Result")
P = ParamSpec("P")
GeneratorFunction = Callable[..., Generator[Item, None, Result]]
Args = tuple[Any, ...]


class Handle(Generic[Kept]):
    """Something that a worker keeps: passed as an argument to its jobs, it is the object itself."""

    def __init__(self, number: int, here: Kept | None = None) -> None:
        self.number, self.here = number, here


def always_wanted() -> bool:
    """Return False: the answer is wanted, whatever happens."""
    return False


class Worker(ABC):
    """What runs jobs. Functions are of a module's top level, arguments and results what can be pickled.

    Each job may be given up on while it makes a step: see :data:`IsUnwanted`. Cancelled is raised then, and the worker
    is ended with all that it keeps, if it goes on: after ``UNWANTED_IDLE_SECONDS`` where it does nothing, after
    ``UNWANTED_BUSY_SECONDS`` else.
    """

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """Whether it takes jobs."""

    @abstractmethod
    def call(self, function: Callable[P, Result], *args: Any, is_unwanted: IsUnwanted = always_wanted) -> Result:
        """Return ``function(*args)``. Raises what that raises, ProcessError where the process ends meanwhile or is
        ended because it hangs, Cancelled."""

    @abstractmethod
    def make(self, function: Callable[P, Kept], *args: Any, is_unwanted: IsUnwanted = always_wanted) -> Handle[Kept]:
        """Call ``function(*args)`` and let the worker keep the result for as long as its handle. Raises likewise."""

    def run(
        self,
        function: GeneratorFunction[Item, Result],
        *args: Any,
        is_unwanted: IsUnwanted = always_wanted,
        is_ahead: bool = False,
    ) -> Generator[Item, None, Result]:
        """Yield what ``function(*args)`` yields, made when it is asked for, and return its result; closing this closes
        it. With ``is_ahead`` a process makes each step while the one before it is looked at. Raises likewise."""
        return self._run(function, args, is_unwanted, is_ahead)

    @abstractmethod
    def _run(
        self, function: GeneratorFunction[Item, Result], args: Args, is_unwanted: IsUnwanted, is_ahead: bool
    ) -> Generator[Item, None, Result]: ...

    @abstractmethod
    def close(self) -> None:
        """End the worker; what it does and keeps is lost."""

    @abstractmethod
    def flush(self) -> None:
        """Let it give up now what no handle names any more; by itself it does so at the next job."""


class ProcessWorker(Worker):
    """A process of its own."""

    def __init__(self, is_background: bool = False) -> None:
        """Start it; ``is_background``: others come first. Raises ProcessError where the system has no process left."""
        limits = Limits(niceness=BACKGROUND if is_background else 0)
        try:
            self._child: Child = start("studio.base.workers.serving:serve", limits=limits)
        except OSError as error:
            raise no_process(error) from error
        self._child.socket.settimeout(STALLED_SECONDS)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._released: deque[int] = deque()
        """Numbers whose handles are gone; said with the next job, since a collection may come at any moment."""
        self._is_closed = False
        self._died: ProcessError | None = None

    @property
    def is_alive(self) -> bool:
        return not self._is_closed and self._died is None and not self._child.has_ended

    def call(self, function: Callable[P, Result], *args: Any, is_unwanted: IsUnwanted = always_wanted) -> Result:
        channel, _ = self._begin_job(Ask.CALL, function, args)
        with contextlib.closing(channel):
            result: Result = self._receive(channel, is_unwanted)[1]
        return result

    def make(self, function: Callable[P, Kept], *args: Any, is_unwanted: IsUnwanted = always_wanted) -> Handle[Kept]:
        channel, number = self._begin_job(Ask.MAKE, function, args)
        with contextlib.closing(channel):
            self._receive(channel, is_unwanted)
        handle: Handle[Kept] = Handle(number)
        weakref.finalize(handle, self._released.append, number)
        return handle

    def _run(
        self, function: GeneratorFunction[Item, Result], args: Args, is_unwanted: IsUnwanted, is_ahead: bool
    ) -> Generator[Item, None, Result]:
        channel, _ = self._begin_job(Ask.RUN_AHEAD if is_ahead else Ask.RUN, function, args)
        has_ended = False
        try:
            while True:
                kind, value = self._receive(channel, is_unwanted)
                if kind is Answer.RESULT:
                    has_ended = True
                    result: Result = value
                    return result
                yield value
                self._send(channel, Ask.NEXT)
        except Exception:
            has_ended = True
            raise
        finally:
            if not has_ended:
                self._close_job(channel)
            channel.close()

    def close(self) -> None:
        self._is_closed = True
        self._child.end()

    def flush(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._release()

    def _release(self) -> None:
        while self._released:
            self._child.socket.sendall(self._released.popleft().to_bytes(8, "little"))

    def _close_job(self, channel: Channel) -> None:
        """Let a job close what it holds; one that does not answer takes the worker with it."""
        with contextlib.suppress(Gone, ProcessError):
            channel.send(Ask.CLOSE)
            if self._has_answer(channel, lambda: True):
                channel.receive()

    def _begin_job(self, ask: Ask, function: Callable[..., Any], args: Args) -> tuple[Channel, int]:
        """Begin a job; return where it answers, and its number."""
        ours, theirs = socket.socketpair()
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", STALLED_SECONDS, 0))
        channel = Channel(ours, name_of=_number_of)
        number = next(self._numbers)
        try:
            with theirs, self._lock:
                self._release()
                socket.send_fds(self._child.socket, [number.to_bytes(8, "little")], [theirs.fileno()])
            channel.send((ask, function, args))
        except (Gone, OSError) as error:
            channel.close()
            raise self._end_with_reason() from error
        except BaseException:
            channel.close()
            raise
        return channel, number

    def _send(self, channel: Channel, ask: Ask) -> None:
        try:
            channel.send(ask)
        except Gone as error:
            raise self._end_with_reason() from error

    def _receive(self, channel: Channel, is_unwanted: IsUnwanted) -> tuple[Answer, Any]:
        """Return the next answer. Raises the job's error, ProcessError, or Cancelled."""
        if not self._has_answer(channel, is_unwanted):
            raise Cancelled
        try:
            kind, value = channel.receive()
        except Gone as error:
            raise self._end_with_reason() from error
        if kind is Answer.ERROR:
            raise value
        return kind, value

    def _has_answer(self, channel: Channel, is_unwanted: IsUnwanted) -> bool:
        """Wait for an answer, or the channel's end; return False where nobody wants it, and the worker was ended over
        it. Raises ProcessError where it was ended because it hangs."""
        if channel.is_ready(POLL_SECONDS):
            return True
        watch, since = Watch(self._child.pid), 0.0
        while not channel.is_ready(POLL_SECONDS):
            watch.look()
            if watch.is_hung:
                LOG.error("a worker process hangs")
                self._died = self._died or ProcessError("worker_hung")
                raise self._end_with_reason()
            if not is_unwanted():
                since = 0.0
                continue
            since = since or time.monotonic()
            waited = time.monotonic() - since
            if waited > UNWANTED_BUSY_SECONDS or min(waited, watch.quiet) > UNWANTED_IDLE_SECONDS:
                LOG.warning("a worker that would not stop is ended")
                self.close()
                return False
        return True

    def _end_with_reason(self) -> ProcessError:
        """Return why there is no answer, with the worker ended."""
        ending = self._child.ended(0 if self._died or self._is_closed else EXIT_GRACE_SECONDS)
        if self._died is None:
            is_closed = ending.was_ended and self._is_closed
            self._died = ProcessError("worker_closed") if is_closed else ending.error()
            if not is_closed:
                LOG.error("a worker process has ended: %s", self._died)
        return copy.copy(self._died)  # each is raised with a traceback of its own


class Here(Worker):
    """This process: what ends a job here ends everything, and what hangs hangs."""

    is_alive = True

    def call(self, function: Callable[P, Result], *args: Any, is_unwanted: IsUnwanted = always_wanted) -> Result:
        result: Result = function(*map(_itself, args))  # type: ignore[call-arg]
        return result

    def make(self, function: Callable[P, Kept], *args: Any, is_unwanted: IsUnwanted = always_wanted) -> Handle[Kept]:
        return Handle(0, self.call(function, *args))

    def _run(
        self, function: GeneratorFunction[Item, Result], args: Args, is_unwanted: IsUnwanted, is_ahead: bool
    ) -> Generator[Item, None, Result]:
        return (yield from self.call(function, *args))

    def close(self) -> None:
        """Nothing to end: what handles hold goes with them."""

    def flush(self) -> None:
        """Nothing to do, for the same reason."""


def new_worker(is_background: bool = False) -> Worker:
    """Return a worker as the settings want it; ``is_background``: one whose work is long, so that others come first.

    Raises ProcessError where no process can be started.
    """
    return ProcessWorker(is_background) if settings().isolate else Here()


def in_worker(
    function: GeneratorFunction[Item, Result], *args: Any, is_unwanted: IsUnwanted = always_wanted
) -> Generator[Item, None, Result]:
    """Run a long job, a generator function, in a worker of its own, which ends with it: its memory is then the system's
    again. It is a background one."""
    worker = new_worker(is_background=True)
    try:
        return (yield from worker.run(function, *args, is_unwanted=is_unwanted))
    finally:
        worker.close()


def _number_of(value: Any) -> int | None:
    return value.number if isinstance(value, Handle) else None


def _itself(value: Any) -> Any:
    return value.here if isinstance(value, Handle) else value
