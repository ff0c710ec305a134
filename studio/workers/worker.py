"""Workers as the server sees them: processes that run functions of ours, watched, and replaced where they end.

:class:`ProcessWorker` is one; :class:`Here` does the same within this process, where none can be started or none is
wanted. Knows no model.
"""

import contextlib
import copy
import itertools
import logging
import signal
import socket
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Generic, ParamSpec, TypeVar

from studio.errors import ProcessError
from studio.settings import settings
from studio.workers.channel import Channel, Gone
from studio.workers.child import Child, start
from studio.workers.serving import Answer, Ask

LOG = logging.getLogger(__name__)
PATIENCE = 10.0
"""Seconds that a job may take to close; a worker that takes longer is ended."""
Kept = TypeVar("Kept")
Item = TypeVar("Item")
Result = TypeVar("Result")
P = ParamSpec("P")


class Handle(Generic[Kept]):
    """Something that a worker keeps: passed as an argument to its jobs, it is the object itself."""

    def __init__(self, number: int, here: Kept | None = None) -> None:
        self.number, self.here = number, here


class Worker(ABC):
    """What runs jobs. Functions are of a module's top level, arguments and results what can be pickled."""

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """Whether it takes jobs."""

    @abstractmethod
    def call(self, function: Callable[P, Result], *args: Any) -> Result:
        """Return ``function(*args)``. Raises what that raises, ProcessError where the process ends meanwhile."""

    @abstractmethod
    def make(self, function: Callable[P, Kept], *args: Any) -> Handle[Kept]:
        """Call ``function(*args)`` and let the worker keep the result for as long as its handle. Raises likewise."""

    @abstractmethod
    def run(self, function: Callable[P, Generator[Item, None, Result]], *args: Any) -> Generator[Item, None, Result]:
        """Yield what ``function(*args)`` yields, made when it is asked for, and return its result; closing this closes
        it. Raises likewise."""

    @abstractmethod
    def close(self) -> None:
        """End the worker; what it does and keeps is lost."""

    @abstractmethod
    def flush(self) -> None:
        """Let it give up now what no handle names any more; by itself it does so at the next job."""


class ProcessWorker(Worker):
    """A process of its own."""

    def __init__(self) -> None:
        """Start it. Raises ProcessError where the system has no process left."""
        try:
            self._child: Child = start("studio.workers.serving:serve")
        except OSError as error:
            raise ProcessError("no_process", reason=error.strerror or str(error)) from error
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._released: deque[int] = deque()
        """Numbers whose handles are gone; said with the next job, since a collection may come at any moment."""
        self._is_closed = False
        self._died: ProcessError | None = None

    @property
    def is_alive(self) -> bool:
        return not self._is_closed and self._died is None

    def call(self, function: Callable[P, Result], *args: Any) -> Result:
        channel, _ = self._asked(Ask.CALL, function, args)
        with contextlib.closing(channel):
            result: Result = self._heard(channel)[1]
        return result

    def make(self, function: Callable[P, Kept], *args: Any) -> Handle[Kept]:
        channel, number = self._asked(Ask.MAKE, function, args)
        with contextlib.closing(channel):
            self._heard(channel)
        handle: Handle[Kept] = Handle(number)
        weakref.finalize(handle, self._released.append, number)
        return handle

    def run(self, function: Callable[P, Generator[Item, None, Result]], *args: Any) -> Generator[Item, None, Result]:
        channel, _ = self._asked(Ask.RUN, function, args)
        has_ended = False
        try:
            while True:
                kind, value = self._heard(channel)
                if kind is Answer.RESULT:
                    has_ended = True
                    result: Result = value
                    return result
                yield value
                self._say(channel, Ask.NEXT)
        except Exception:
            has_ended = True
            raise
        finally:
            if not has_ended:
                self._closed_job(channel)
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

    def _closed_job(self, channel: Channel) -> None:
        """Let a job close what it holds; one that does not answer takes the worker with it."""
        with contextlib.suppress(Gone):
            channel.send(Ask.CLOSE)
            if channel.is_ready(PATIENCE):
                channel.receive()
            else:
                LOG.warning("a worker that would not stop is ended")
                self.close()

    def _asked(self, ask: Ask, function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Channel, int]:
        """Begin a job; return where it answers, and its number."""
        ours, theirs = socket.socketpair()
        channel = Channel(ours, name_of=_number_of)
        number = next(self._numbers)
        try:
            with theirs, self._lock:
                self._release()
                socket.send_fds(self._child.socket, [number.to_bytes(8, "little")], [theirs.fileno()])
            channel.send((ask, function, args))
        except (Gone, OSError) as error:
            channel.close()
            raise self._ending() from error
        except BaseException:
            channel.close()
            raise
        return channel, number

    def _say(self, channel: Channel, ask: Ask) -> None:
        try:
            channel.send(ask)
        except Gone as error:
            raise self._ending() from error

    def _heard(self, channel: Channel) -> tuple[Answer, Any]:
        """Return the next answer. Raises the job's error, or ProcessError."""
        try:
            kind, value = channel.receive()
        except Gone as error:
            raise self._ending() from error
        if kind is Answer.ERROR:
            raise value
        return kind, value

    def _ending(self) -> ProcessError:
        """Return why there is no answer."""
        was_closed = self._is_closed
        status = self._child.end()
        if self._died is None:
            if was_closed:
                self._died = ProcessError("worker_closed")
            elif status == -signal.SIGKILL:  # by the system: nobody else kills it
                self._died = ProcessError("worker_memory")
            else:
                reason = signal.Signals(-status).name if status is not None and status < 0 else f"exit {status}"
                self._died = ProcessError("worker_crashed", reason=reason)
            if not was_closed:
                LOG.error("a worker process has ended: %s", self._died)
        return copy.copy(self._died)  # each is raised with a traceback of its own


class Here(Worker):
    """This process: what ends a job here ends everything."""

    is_alive = True

    def call(self, function: Callable[P, Result], *args: Any) -> Result:
        result: Result = function(*map(_itself, args))  # type: ignore[call-arg]
        return result

    def make(self, function: Callable[P, Kept], *args: Any) -> Handle[Kept]:
        return Handle(0, self.call(function, *args))

    def run(self, function: Callable[P, Generator[Item, None, Result]], *args: Any) -> Generator[Item, None, Result]:
        return (yield from self.call(function, *args))

    def close(self) -> None:
        """Nothing to end: what handles hold goes with them."""

    def flush(self) -> None:
        """Nothing to do, for the same reason."""


def new_worker() -> Worker:
    """Return a worker as the settings want it. Raises ProcessError where no process can be started."""
    return ProcessWorker() if settings().isolate else Here()


def in_worker(function: Callable[P, Generator[Item, None, Result]], *args: Any) -> Generator[Item, None, Result]:
    """Run a generator function in a worker of its own, which ends with it: its memory is then the system's again."""
    worker = new_worker()
    try:
        return (yield from worker.run(function, *args))
    finally:
        worker.close()


def _number_of(value: Any) -> int | None:
    return value.number if isinstance(value, Handle) else None


def _itself(value: Any) -> Any:
    return value.here if isinstance(value, Handle) else value
