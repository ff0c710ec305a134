"""Who is there: the visits of one process, and what becomes of what they hold once nobody is connected any more.

A page that is open keeps a connection; one that slept or lost the network asks again when it is back. First the jobs of
a visitor who is gone are stopped, then what is big is let go, and after an hour the visit is forgotten. Knows neither
pages nor connections but that there are some.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from studio.base.malloc import release_free_memory
from studio.base.settings import settings
from studio.chat.model_pool import Pool
from studio.session.session import Session

SWEEP_SECONDS = 1.0
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """How a visit stands, for the page that asks."""

    is_known: bool
    """Whether there is such a visit still."""
    is_connected: bool
    is_let_go: bool
    """Whether what it held was let go while nobody was there."""


@dataclass(eq=False)
class _Visit:
    session: Session
    seen: float
    """When somebody was there last, by the clock."""
    is_stopped: bool = False
    is_let_go: bool = False


class Attendance:
    """The visits by their keys."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._clock = pool, clock
        self._visits: dict[str, _Visit] = {}
        self._connections: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.forgotten: Callable[[str], object] = lambda visit: None
        """Told of each visit that is forgotten."""

    def __len__(self) -> int:
        return len(self._visits)

    def arrive(self, visit: str, session: Session) -> None:
        """Note a session that begins; one that another visit under the same key left is closed."""
        with self._lock:
            before = self._visits.pop(visit, None)
            self._visits[visit] = _Visit(session, self._clock())
        if before is not None:
            before.session.close()

    @contextmanager
    def connected(self, visit: str) -> Iterator[None]:
        """Count a connection as long as it is there."""
        with self._lock:
            self._connections[visit] += 1
            self._note(visit)
        try:
            yield
        finally:
            with self._lock:
                self._connections[visit] -= 1
                if not self._connections[visit]:
                    del self._connections[visit]
                self._note(visit)

    def see(self, visit: str) -> Standing:
        """Note that somebody is there, and return how the visit stands."""
        with self._lock:
            found = self._note(visit)
            let_go = found is not None and found.is_let_go
            return Standing(found is not None, visit in self._connections, let_go)

    def _note(self, visit: str) -> _Visit | None:
        found = self._visits.get(visit)
        if found is not None:
            found.seen = self._clock()
            if found.is_stopped:
                found.is_stopped = False
                found.session.jobs.clear_all()
        return found

    def left_by(self, key: str, but: Session) -> Session | None:
        """Return the session that the browser called ``key`` left last, which is the caller's from now on; None where
        there is none. One whose page is open somewhere stays where it is, and so does another visitor's: a key is said
        by the browser, and could be another's."""
        with self._lock:
            left = [
                (found.seen, visit)
                for visit, found in self._visits.items()
                if found.session is not but
                and found.session.decision.key == key
                and found.session.visitor.number == but.visitor.number
                and visit not in self._connections
            ]
            if not key or not left:
                return None
            visit = max(left)[1]
            taken = self._visits.pop(visit).session
        self.forgotten(visit)  # a page that sleeps there finds out when it wakes
        return taken

    def sweep(self) -> None:
        """Do what is due for each visit that nobody is connected to."""
        said = settings()
        with self._lock:
            now = self._clock()
            away = {
                visit: (found, now - found.seen)
                for visit, found in self._visits.items()
                if visit not in self._connections
            }
            gone = [visit for visit, (_, seconds) in away.items() if seconds > said.forget_after]
            for visit in gone:
                del self._visits[visit]
            stopped = [found for found, seconds in away.values() if seconds > said.stop_after]
            freed = [
                found
                for found, seconds in away.values()
                if seconds > said.free_after and (found.session.is_holding or not found.is_let_go)
            ]
            for found in stopped:
                found.is_stopped = True
                found.session.jobs.stop_all()  # under the lock: who comes back in between takes it back
            for found in freed:
                found.is_let_go = True
        for found in freed:
            _surely(found.session.let_go)
        for visit in gone:
            _surely(away[visit][0].session.close)
            _surely(partial(self.forgotten, visit))
        if freed or gone:
            _surely(self._let_models_go)

    def _let_models_go(self) -> None:
        """Drop the models that rest and that no visitor who is here comes back to."""
        with self._lock:
            recent = self._clock() - settings().free_after
            here = [
                found.session
                for visit, found in self._visits.items()
                if visit in self._connections or found.seen >= recent
            ]
        self._pool.keep_only({key for session in here for key in session.model_keys})
        release_free_memory()

    def watch(self) -> None:
        """Sweep from a thread of its own until the process ends."""

        def sweeping() -> None:
            while True:
                time.sleep(SWEEP_SECONDS)
                self.sweep()

        threading.Thread(target=sweeping, daemon=True, name="attendance").start()


def _surely(give_back: Callable[[], object]) -> None:
    """Give something back; what fails of one visitor's, such as a worker that is dead, keeps no other's from it."""
    try:
        give_back()
    except Exception:
        LOG.exception("not all that a visitor held was given back")
