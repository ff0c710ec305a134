"""The jobs of visitors as they end: what kind, how long, how. Knows not what was asked for, nor what came of it."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from studio.base.errors import Cancelled, UserError, is_out_of_memory
from studio.session.session import Session

Outcome = Literal["done", "refused", "cancelled", "left", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("done", "refused", "cancelled", "left", "failed")
KINDS = {
    "open_model": "open",
    "open_recipe": "recipe",
    "estimate": "sample",
    "measure": "measure",
    "compress": "compress",
    "make": "make",
    "measure_drift": "drift",
    "talk": "chat",
    "regenerate": "chat",
    "export": "export",
    "verify": "verify",
    "judge": "drift",
    "push": "export",
    "push_as": "export",
    "answer_in_browser": "export",
    "fetch_calibration": "text",
    "fetch_text": "text",
}
"""The page's functions that are jobs -> what is counted; the others are the hand on a control."""


@dataclass(frozen=True)
class Ended:
    """A job that ended."""

    kind: str
    visitor: int
    """The number of whose it was: see :class:`studio.session.visitor.Visitor`."""
    seconds: float
    outcome: Outcome
    reason: str = ""
    """The key of the sentence that was shown, or the kind of an error that nobody meant."""


Listener = Callable[[Ended], None]
SESSIONS: "weakref.WeakSet[Session]" = weakref.WeakSet()
"""Those of visitors, until they are given up."""
_listeners: list[Listener] = []
_running: dict[str, int] = dict.fromkeys(sorted(set(KINDS.values())), 0)
_lock = threading.Lock()


class Job:
    """One that runs."""

    def __init__(self) -> None:
        self.outcome: Outcome = "done"
        self.reason = ""

    def fail(self, error: BaseException) -> None:
        """Note what it ended by."""
        if isinstance(error, Cancelled):
            self.outcome = "cancelled"
        elif isinstance(error, UserError):
            self.outcome, self.reason = "refused", error.key
        else:
            self.outcome = "failed"
            self.reason = "out_of_memory" if is_out_of_memory(error) else type(error).__name__


def listen(listener: Listener) -> Callable[[], None]:
    """Tell ``listener`` of each job that ends from now on; return what stops that."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def running() -> dict[str, int]:
    """Return how many jobs of each kind run or wait for their turn."""
    with _lock:
        return dict(_running)


@contextmanager
def watched(name: str, session: Session) -> Iterator[Job]:
    """Watch a function of the page while it runs; what is no job is not told of."""
    job, kind = Job(), KINDS.get(name)
    if kind is None:
        yield job
        return
    began = time.monotonic()
    with _lock:
        _running[kind] += 1
    try:
        yield job
    except BaseException:  # from outside: the tab was closed, or the server ends
        job.outcome = "left"
        raise
    finally:
        with _lock:
            _running[kind] -= 1
        ended = Ended(kind, session.visitor.number, time.monotonic() - began, job.outcome, job.reason)
        for listener in tuple(_listeners):
            listener(ended)
