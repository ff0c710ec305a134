"""Long jobs of several visitors on one machine: each works for a moment, then it is the next one's turn.

Who has worked least is next, and time is counted by visitor: several jobs of one have one share between them. Every
second turn is that of who has had none for the longest, so newcomers without end keep nobody from going on. While
somebody's answer is being computed, long jobs work for ``SHARE`` of the time alone. Some hold a process and its memory
from their begin to their end; of these, those of ``PLACES`` visitors are under way, and the others stand in line.

Knows nothing of what the jobs do. The turn is never held while a job says something, so a visitor who listens slowly,
or has left, keeps nobody waiting.
"""

import statistics
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

TURN = 0.1
"""Seconds a job works before it lets another go on; one step of a job is never cut."""
LEAST = 0.1
"""Seconds that a turn counts at least."""
CREDIT = 2.0
"""Seconds that a visitor who comes, or was away, may have worked less than the others."""
SHARE = 0.2
"""Of the time that long jobs have while an answer is computed: they go on, or who talks without end would end them."""
PLACES = 4
"""Sessions whose long jobs are under way at once: each has a process with a model's weights in it."""
PLACES_EACH = 2
"""Of these, the sessions of one visitor."""
LOOK = 0.5
"""Seconds between looks at whether a job that waits is still wanted; it says where it stands as often."""
REMEMBERED = 16
"""Places given back, by which it is told how long the line will take."""


@dataclass(frozen=True)
class Line:
    """Where a visitor stands who waits for a place."""

    before: int
    """Visitors who get one sooner."""
    seconds: float | None
    """About how long it will be; None while nobody has given a place back yet."""


def never() -> None:
    """Check nothing: the job is wanted, whatever happens."""


class Turns:
    """A line of jobs, of which one works."""

    def __init__(self, places: int = PLACES) -> None:
        self.jobs = 0
        """How many have begun and not ended."""
        self.answers = 0
        """How many are being computed."""
        self._places = places
        self._line: dict[Visitor, int] = {}
        """Who asked for places, and how often; in the order they came, and the first ``places`` have them."""
        self._held: deque[float] = deque(maxlen=REMEMBERED)
        """Seconds for which the last places were held."""
        self._waiting: list[_Job] = []
        self._accounts: weakref.WeakValueDictionary[int, Account] = weakref.WeakValueDictionary()
        self._is_busy = False
        self._level = 0.0
        """The most that a visitor whose turn came had worked before it, which never falls: else each who comes would
        begin a little below the one before, and those who came first would wait for all of them."""
        self._had = 0
        """Turns that were had."""
        self._rest_until = 0.0
        """When long jobs go on, while an answer is computed."""
        self._moved = threading.Condition()

    def visitor(self, number: int = 0) -> "Visitor":
        """Return a session's part in this; sessions of one number have one account, 0 is somebody new each time."""
        with self._moved:
            account = self._accounts.get(number) or Account(self._had)
            if number:
                self._accounts[number] = account
        return Visitor(self, account)

    @property
    def waiting(self) -> int:
        """How many wait for their turn now, the one that works included."""
        return len(self._waiting) + self._is_busy

    @property
    def standing(self) -> int:
        """How many have a place or wait for one."""
        return len(self._line)

    @property
    def is_contended(self) -> bool:
        """Whether a job that works has to think of others."""
        return self.jobs > 1 or self.answers > 0

    # answers

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Compute an answer: long jobs rest meanwhile, but for their share."""
        with self._moved:
            self.answers += 1
            if self.answers == 1:
                self._rest_until = time.monotonic() + _rest(TURN)
        try:
            yield
        finally:
            with self._moved:
                self.answers -= 1
                self._moved.notify_all()

    @property
    def _is_resting(self) -> bool:
        return self.answers > 0 and time.monotonic() < self._rest_until

    # places

    def _place(self, visitor: "Visitor", check: Callable[[], None]) -> Generator[Line, None, None]:
        """Yield where ``visitor`` stands until there is a place for it."""
        with self._moved:
            self._line[visitor] = self._line.get(visitor, 0) + 1
        try:
            while (line := self._stands(visitor)) is not None:
                yield line
                check()
                with self._moved:
                    self._moved.wait_for(lambda: self._stands(visitor) is None, LOOK)
        except BaseException:
            self._leave(visitor)
            raise

    def _stands(self, visitor: "Visitor") -> Line | None:
        """Return where somebody stands in line, None for who has a place."""
        with self._moved:
            having, waiting = self._split()
            if visitor in having:
                return None
            before = waiting.index(visitor)
            seconds = (before + 1) * statistics.median(self._held) / self._places if self._held else None
            return Line(before, seconds)

    def _split(self) -> tuple[list["Visitor"], list["Visitor"]]:
        """Return who has a place, and who waits for one, in the order they came: who has one keeps it, for those before
        it only grow fewer."""
        having: list[Visitor] = []
        waiting: list[Visitor] = []
        of_account: Counter[int] = Counter()
        for visitor in self._line:
            has_one = len(having) < self._places and of_account[id(visitor.account)] < PLACES_EACH
            of_account[id(visitor.account)] += has_one
            (having if has_one else waiting).append(visitor)
        return having, waiting

    def _leave(self, visitor: "Visitor", seconds: float | None = None) -> None:
        """Give a place back that was held for so many seconds, or leave the line."""
        with self._moved:
            self._line[visitor] -= 1
            if not self._line[visitor]:
                del self._line[visitor]
                self._held.extend([] if seconds is None else [seconds])
            self._moved.notify_all()

    # turns

    def _wait(self, job: "_Job") -> bool:
        """Return whether it is the turn of ``job``, which is its own from then on; waits ``LOOK`` seconds at most, and
        stands in line no longer: who asks does not come back, perhaps."""
        until = time.monotonic() + LOOK
        with self._moved:
            account = job.visitor.account
            account.worked = max(account.worked, self._level - CREDIT)
            self._waiting.append(job)
            try:
                while not self._is_next(job):
                    left = (min(until, self._rest_until) if self._is_resting else until) - time.monotonic()
                    if left <= 0 and time.monotonic() >= until:
                        self._moved.notify_all()  # it was the next one, perhaps
                        return False
                    self._moved.wait(max(0.0, left))
            finally:
                self._waiting.remove(job)
            self._is_busy, self._level = True, max(self._level, account.worked)
            self._had += 1
            account.last = self._had
            return True

    def _is_next(self, job: "_Job") -> bool:
        if self._is_busy or self._is_resting:
            return False
        return min(self._waiting, key=self._rank) is job

    def _rank(self, job: "_Job") -> float:
        """Return by what the next one is told: the least is it."""
        account = job.visitor.account
        return account.last if self._had % 2 else account.worked

    def _end(self, job: "_Job", seconds: float) -> None:
        """Give back a turn that was had for so many seconds."""
        with self._moved:
            job.visitor.account.worked += max(LEAST, seconds)
            self._is_busy, self._rest_until = False, time.monotonic() + _rest(seconds)
            self._moved.notify_all()

    def _count(self, more: int) -> None:
        """Note that a job has begun or ended."""
        with self._moved:
            self.jobs += more


class Account:
    """What all sessions of one visitor have had."""

    def __init__(self, last: int = 0) -> None:
        self.worked = 0.0
        """Seconds of work."""
        self.last = last
        """Which turn was its last, or the last of anybody when it came."""
        self.under_way: Counter[str] = Counter()
        """How many jobs of each kind run or wait."""


class Visitor:
    """A session of somebody who may have several, each with several jobs."""

    def __init__(self, turns: Turns, account: Account) -> None:
        self.turns, self.account = turns, account

    @contextmanager
    def begun(self, kind: str, most: int) -> Iterator[bool]:
        """Count a job from when it is asked for until it ends; tell whether all of the visitor's are at most ``most``
        of this kind: the slots in which they run and wait are everybody's."""
        under_way = self.account.under_way
        with self.turns._moved:
            under_way[kind] += 1
            may = under_way[kind] <= most
        try:
            yield may
        finally:
            with self.turns._moved:
                under_way[kind] -= 1

    def answering(self) -> AbstractContextManager[None]:
        """Compute an answer: long jobs, of whomever, rest meanwhile, but for their share."""
        return self.turns.answering()

    def place(self, check: Callable[[], None] = never) -> Generator[Line, None, AbstractContextManager[None]]:
        """Yield where this visitor stands in line, and return a place, to be entered at once.

        Who has one already gets it again. ``check`` raises where it is wanted no more.
        """
        yield from self.turns._place(self, check)
        return self._held()

    @contextmanager
    def _held(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.turns._leave(self, time.monotonic() - began)

    def shared(
        self, steps: Generator[Item, None, Result], check: Callable[[], None] = never
    ) -> Generator[Item, None, Result]:
        """Yield what ``steps`` yields, a turn's worth at once where there are others, and return its result; closing
        this closes it.

        While it waits for its turn it says its last item again. ``check`` raises where it is wanted no more.
        """
        job = _Job(self)
        self.turns._count(1)
        try:
            said: list[Item] = []
            while True:
                while not self.turns._wait(job):
                    yield from said[-1:]
                    check()
                items, ended = job.work(steps)
                yield from items
                if ended is not None:
                    result: Result = ended.value
                    return result
                said = items
        finally:
            self.turns._count(-1)
            steps.close()


@dataclass(eq=False)
class _Job:
    """One that waits for its turn, or has it."""

    visitor: Visitor

    def work(self, steps: Generator[Item, None, Any]) -> tuple[list[Item], StopIteration | None]:
        """Return what a turn's worth of steps says, a single one where nobody else is there, and their end where they
        have ended."""
        items: list[Item] = []
        began = time.monotonic()
        try:
            items.append(next(steps))
            while self.visitor.turns.is_contended and time.monotonic() < began + TURN:
                items.append(next(steps))
        except StopIteration as ended:
            return items, ended
        finally:
            self.visitor.turns._end(self, time.monotonic() - began)
        return items, None


def _rest(worked: float) -> float:
    """Return for how long long jobs rest after they have worked so many seconds."""
    return worked * (1 / SHARE - 1)
