"""The counters of a page. Knows not who reads them, nor what jobs do."""

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from studio.base import workers
from studio.ui.watching import jobs
from studio.ui.watching.exposition import Family, Labels, exposed, number
from studio.ui.watching.jobs import KINDS, OUTCOMES, SESSIONS, Ended


class Metrics:
    """What is counted of one page since its server began, and how things stand at the moment of asking."""

    def __init__(self, queued: Callable[[], int], disk: Path) -> None:
        """``queued``: how many calls of the page wait or run; ``disk``: a folder of the disk that the studio fills."""
        self._queued, self._disk = queued, disk
        self._lock = threading.Lock()
        kinds = sorted(set(KINDS.values()))
        self._jobs: dict[Labels, float] = {(kind, outcome): 0 for kind in kinds for outcome in OUTCOMES}
        self._seconds: dict[Labels, float] = {(kind,): 0 for kind in kinds}
        self._refused: dict[Labels, float] = {}

    def ended(self, ended: Ended) -> None:
        """Count a job."""
        with self._lock:
            self._jobs[ended.kind, ended.outcome] += 1
            self._seconds[ended.kind,] += ended.seconds

    def refused(self, reason: str) -> None:
        """Count a request that was turned away."""
        with self._lock:
            self._refused[reason,] = self._refused.get((reason,), 0) + 1

    def text(self) -> str:
        """Return all of it in Prometheus' format."""
        with self._lock:
            counted = [
                Family("studio_jobs_total", "counter", "Jobs that ended.", ("kind", "outcome"), dict(self._jobs)),
                Family("studio_job_seconds_total", "counter", "How long jobs took.", ("kind",), dict(self._seconds)),
                Family(
                    "studio_requests_refused_total", "counter", "Requests turned away at the door.", ("reason",),
                    dict(self._refused),
                ),
            ]  # fmt: skip
        return exposed([*counted, *self._now()])

    def _now(self) -> Iterator[Family]:
        running: dict[Labels, float] = {(kind,): count for kind, count in jobs.running().items()}
        yield Family("studio_jobs_running", "gauge", "Jobs that run or wait for their turn.", ("kind",), running)
        yield Family("studio_memory_bytes", "gauge", "Resident memory.", ("of",), _memory())
        yield number("studio_queue_calls", "gauge", "Calls of the page that wait or run.", self._queued())
        yield number("studio_sessions", "gauge", "Sessions that are held.", len(SESSIONS))
        yield number("studio_workers_up", "gauge", "Whether worker processes can start.", workers.are_alive())
        restarted = "How often what worker processes come from was started again."
        yield number("studio_workers_restarts_total", "counter", restarted, workers.restarts())
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self._disk).free
            yield number("studio_disk_free_bytes", "gauge", "Free on the disk of the cache.", free)


def _memory() -> dict[Labels, float]:
    """Return the bytes that the server and its worker processes have; what they share counts for each."""
    server, children = psutil.Process(), 0
    for child in server.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            children += child.memory_info().rss
    return {("server",): server.memory_info().rss, ("workers",): children}
