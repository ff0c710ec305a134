"""Work handed to threads and fetched in order: reading ahead, writing behind. Knows nothing of what is done."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

Given = TypeVar("Given")
Item = TypeVar("Item")
P = ParamSpec("P")


@contextmanager
def ahead(items: Iterator[Item], depth: int) -> Iterator[Iterator[Item]]:
    """Give ``items`` in their order, up to ``depth`` of them made in a thread before they are asked for.

    What making one raises is raised where it would have been given.
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:

        def results() -> Iterator[Item]:
            coming: deque[Future[Item | object]] = deque(thread.submit(next, items, end) for _ in range(depth))
            while (item := coming.popleft().result()) is not end:
                coming.append(thread.submit(next, items, end))
                yield item  # type: ignore[misc]

        try:
            yield results()
        finally:
            thread.shutdown(cancel_futures=True)


@contextmanager
def in_threads(
    call: Callable[[Given], Item], given: Iterable[Given], threads: int, depth: int
) -> Iterator[Iterator[Future[Item]]]:
    """Give the futures of ``call`` of each of ``given``, in their order; ``threads`` work at up to ``depth`` of them.

    At the end no more are begun; those under way are not waited for.
    """
    pool = ThreadPoolExecutor(threads)
    left = iter(given)

    def results() -> Iterator[Future[Item]]:
        coming = deque(pool.submit(call, each) for each in islice(left, depth))
        while coming:
            yield coming.popleft()
            coming.extend(pool.submit(call, each) for each in islice(left, 1))

    try:
        yield results()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class BackgroundWriter:
    """Calls made in a thread, in their order, at most ``depth`` of them waiting; use as a context manager.

    After one that fails no other is made; what it raised is raised by the next :meth:`do`, or at the end.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._thread = ThreadPoolExecutor(1)
        self._calls: deque[Future[None]] = deque()
        self._has_failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if kind is None:
            for call in self._calls:
                call.result()

    def do(self, call: Callable[P, object], /, *arguments: P.args, **options: P.kwargs) -> None:
        """Make this call after those before it, waiting while too many do."""
        while len(self._calls) >= self._depth:
            self._calls.popleft().result()
        self._calls.append(self._thread.submit(self._make, lambda: call(*arguments, **options)))

    def _make(self, call: Callable[[], object]) -> None:
        if self._has_failed:
            return
        try:
            call()
        except BaseException:
            self._has_failed = True
            raise
