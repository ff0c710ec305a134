"""Which of a session's jobs are to end. Knows nothing of what they do.

A job is a generator that asks at each of its steps; another thread may say stop at any moment.
"""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TypeVar

from studio.base.errors import Cancelled, ModelError
from studio.base.fair_turns import Line, Turns
from studio.base.progress import JOBS, Job, Progress
from studio.base.steps import relayed

MOST_AT_ONCE = 4
"""Jobs of one kind that all sessions of a visitor may have running or waiting: the lanes are everybody's."""
MOST_WAITING = 2
"""Jobs of one session that wait for each other; each takes a place in a lane that all visitors share."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class Jobs:
    """A wish to stop for each kind of job, and the turns that long ones take with those of other sessions."""

    def __init__(self, turns: Turns | None = None, number: int = 0) -> None:
        """``turns``: those of all sessions that share this machine; None for a session alone. ``number``: whose it is,
        as :class:`studio.session.visitor.Visitor` counts them."""
        self.visitor = (Turns() if turns is None else turns).visitor(number)
        self._stops = {job: threading.Event() for job in JOBS}

    def clear_stop(self, job: Job) -> None:
        """Forget an earlier wish to stop this job: it was asked for anew."""
        self._stops[job].clear()

    def stop(self, job: Job) -> None:
        """Ask a job that waits or runs to end at its next step."""
        self._stops[job].set()

    def stop_all(self) -> None:
        for job in JOBS:
            self.stop(job)

    def clear_all(self) -> None:
        """Forget every wish to stop: whoever was thought to be gone is back."""
        for job in JOBS:
            self.clear_stop(job)

    def should_stop(self, job: Job) -> Callable[[], bool]:
        """Return what says whether the job is to end, for a worker to ask while it makes a step."""
        return self._stops[job].is_set

    def raise_if_stopped(self, job: Job) -> None:
        """Raise Cancelled, once, where the job is to end."""
        if self._stops[job].is_set():
            self.clear_stop(job)
            raise Cancelled

    @contextmanager
    def begun(self, job: Job) -> Iterator[None]:
        """Count a job from when it is asked for until it ends. Raises ModelError where its visitor has too many."""
        with self.visitor.begun(job, MOST_AT_ONCE) as may:
            if not may:
                raise ModelError("still_busy")
            yield

    def relay(
        self, job: Job, steps: Generator[Item, None, Result], is_current: Callable[[], bool] = lambda: True
    ) -> Generator[Item, None, Result]:
        """Yield a stage's steps and return its result; closing this closes the stage.

        Raises Cancelled, with the stage closed, once :meth:`stop` was called for the job, or what it is done for is no
        longer the session's.
        """

        return (yield from relayed(steps, lambda step: self._checked(job, is_current, step)))

    def in_turn(
        self,
        job: Job,
        steps: Generator[Item, None, Result],
        say: Callable[[Item], Progress],
        is_current: Callable[[], bool] = lambda: True,
    ) -> Generator[Progress, None, Result]:
        """Yield what ``say`` makes of a long stage's steps, and return its result: it takes turns with that of others,
        and rests while somebody's answer is computed. A step may be said again. Raises as :meth:`relay` does."""

        def told(step: Item) -> Progress:
            return replace(say(self._checked(job, is_current, step)), is_shared=self.visitor.turns.jobs > 1)

        shared = self.visitor.shared(steps, lambda: self._checked(job, is_current, None))
        return (yield from relayed(shared, told))

    def placed(self, job: Job) -> Generator[Progress, None, AbstractContextManager[None]]:
        """Yield where the session stands in line for a place among those whose long work is under way, and return the
        place, to be entered at once. Raises Cancelled once :meth:`stop` was called for the job."""

        def told(line: Line) -> Progress:
            return Progress("queue", line=line)

        return (yield from relayed(self.visitor.place(lambda: self.raise_if_stopped(job)), told))

    def one_by_one(self, line: Turns, job: Job) -> Generator[Progress, None, AbstractContextManager[None]]:
        """Yield while another job of the session has the one place of ``line``; return it, to be entered at once.

        Raises Cancelled as :meth:`placed` does, ModelError where as many wait as a page can ask for by its buttons.
        """
        if line.standing > MOST_WAITING:
            raise ModelError("still_busy")
        waits = line.visitor().place(lambda: self.raise_if_stopped(job))
        return (yield from relayed(waits, lambda _: Progress("begin")))

    def _checked(self, job: Job, is_current: Callable[[], bool], step: Item) -> Item:
        self.raise_if_stopped(job)
        if not is_current():
            raise Cancelled
        return step
