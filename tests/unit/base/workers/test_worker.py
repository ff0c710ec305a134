"""Workers that hang: each is ended, and an answer that nobody wants is not waited for."""

import os
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio.base.errors import Cancelled, ProcessError
from studio.base.workers import BACKGROUND, ProcessWorker, in_worker, pulse, start, worker
from studio.checkpoint.gguf import source
from tests import worker_jobs as jobs
from tests.worker_jobs import PATIENCE


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(pulse, "EVERY", 0.04)
    monkeypatch.setattr(pulse, "HUNG", 0.5)
    monkeypatch.setattr(worker, "UNWANTED_IDLE_SECONDS", 0.3)


@pytest.mark.parametrize("job", [jobs.stopped, jobs.locked], ids=["stopped", "locked"])
def test_a_worker_that_stands_still_is_ended(process: ProcessWorker, impatient: None, job: Callable[[], None]) -> None:
    with pytest.raises(ProcessError) as caught:
        process.call(job)
    assert caught.value.key == "worker_hung"
    assert not process.is_alive


@pytest.mark.parametrize("job", [(jobs.stopped,), (jobs.computed, PATIENCE)], ids=["stands", "computes"])
def test_an_answer_that_nobody_wants_ends_its_worker(
    process: ProcessWorker, impatient: None, monkeypatch: pytest.MonkeyPatch, job: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(pulse, "HUNG", PATIENCE)
    monkeypatch.setattr(worker, "UNWANTED_BUSY_SECONDS", 1.0)
    unwanted = threading.Event()
    threading.Timer(0.2, unwanted.set).start()
    with pytest.raises(Cancelled):
        process.call(*job, is_unwanted=unwanted.is_set)
    assert not process.is_alive


def test_a_step_that_ends_in_time_is_given_though_nobody_wants_it(process: ProcessWorker) -> None:
    """Whoever asked for it says that it is stopped, and lets the job close what it holds."""
    assert process.call(jobs.slept, 0.8, is_unwanted=lambda: True) == "slept"
    assert process.is_alive


def test_a_generator_in_a_worker_of_its_own_is_given_up_on_too(impatient: None) -> None:
    def stands() -> Iterator[object]:
        return in_worker(still, is_unwanted=lambda: True)

    with pytest.raises(Cancelled):
        list(stands())


def still() -> Generator[int, None, None]:
    jobs.stopped()
    yield 1


def test_a_job_that_does_not_close_is_ended(process: ProcessWorker, impatient: None) -> None:
    steps = process.run(unclosing)
    next(steps)
    steps.close()
    assert not process.is_alive


def test_a_conversion_that_stands_still_is_ended(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "TICK", 0.05)
    monkeypatch.setattr(source, "start", lambda *_, **_limits: start("tests.worker_jobs:standing"))
    with pytest.raises(ProcessError) as caught:
        list(source._converted(SimpleNamespace(file=Path("m.gguf"), tokenizer_seconds=5), Path("m")))  # type: ignore[arg-type]
    assert caught.value.key == "worker_hung"


def unclosing() -> Generator[int, None, None]:
    try:
        while True:
            yield 1
    finally:
        jobs.stopped()


def test_a_long_job_of_its_own_stands_back_where_others_compute(process: ProcessWorker) -> None:
    ours = os.nice(0)
    assert process.call(jobs.niceness) == ours
    steps: Iterator[int] = in_worker(jobs.said_niceness)
    assert list(steps) == [min(19, ours + BACKGROUND)]
