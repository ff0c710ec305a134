"""Ends of workers: what is said of each, and that none leaves a descriptor behind."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from studio.base.errors import ProcessError
from studio.base.workers import Ending, ProcessWorker, start, worker
from tests import worker_jobs as jobs
from tests.worker_jobs import PATIENCE


def test_a_worker_that_was_ended_while_idle_is_seen_as_gone(process: ProcessWorker) -> None:
    process.call(jobs.pid)
    assert process.is_alive
    os.kill(process._child.pid, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while process.is_alive and time.monotonic() < until:
        time.sleep(0.01)
    assert not process.is_alive
    with pytest.raises(ProcessError) as caught:
        process.call(jobs.pid)
    assert caught.value.key == "worker_memory"


def test_a_sound_worker_whose_answer_is_lost_was_not_short_of_memory(
    process: ProcessWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "EXIT_GRACE_SECONDS", 0.1)
    with pytest.raises(ProcessError) as caught:
        process.call(jobs.unanswered)
    assert caught.value.key == "worker_hung"


@pytest.mark.parametrize(
    ("ending", "key", "reason"),
    [
        (Ending(-signal.SIGSEGV), "worker_crashed", "SIGSEGV"),
        (Ending(3), "worker_crashed", "exit 3"),
        (Ending(-40), "worker_crashed", "signal 40"),
        (Ending(-signal.SIGKILL), "worker_memory", None),
        (Ending(-signal.SIGKILL, was_ended=True), "worker_hung", None),
        (Ending(None), "worker_orphaned", None),
        (Ending(None, was_ended=True), "worker_hung", None),
    ],
)
def test_an_end_is_told_by_its_kind(ending: Ending, key: str, reason: str | None) -> None:
    error = ending.error()
    assert error.key == key
    assert error.values.get("reason") == reason
    assert "None" not in ending.reason


@pytest.mark.parametrize("job", [jobs.mute, jobs.unpicklable], ids=["error", "result"])
def test_what_cannot_be_sent_is_an_error_all_the_same(process: ProcessWorker, job: Callable[[], object]) -> None:
    with pytest.raises(Exception, match=r"Mute|[Pp]ickle|local object"):
        process.call(job)
    assert process.is_alive
    assert process.call(jobs.pid) > 0


def test_a_worker_without_threads_left_refuses_the_job_alone(process: ProcessWorker) -> None:
    counter = process.make(jobs.Counter, 1)
    process.call(jobs.threadless)
    with pytest.raises(RuntimeError, match="new thread"):
        process.call(jobs.raised, counter, 1)
    assert process.is_alive


def test_jobs_leave_no_descriptors(process: ProcessWorker) -> None:
    process.call(jobs.pid)
    ours, theirs = jobs.descriptors(), process.call(jobs.descriptors)
    for i in range(500):
        if i % 5:
            process.call(jobs.pid)
        elif i % 2:
            steps = process.run(jobs.counted, 3)
            next(steps)
            steps.close()
        else:
            with pytest.raises(EOFError):
                process.call(jobs.cut_short)
    assert jobs.descriptors() <= ours
    until = time.monotonic() + PATIENCE
    while process.call(jobs.descriptors) > theirs and time.monotonic() < until:
        time.sleep(0.01)  # a thread that has answered closes its socket a moment later
    assert process.call(jobs.descriptors) <= theirs


def test_children_leave_no_descriptors() -> None:
    start("tests.worker_jobs:echoed", "").end()
    before = jobs.descriptors()
    for _ in range(10):
        start("tests.worker_jobs:echoed", "").end()
    for _ in range(10):
        start("tests.worker_jobs:echoed", "")
    assert jobs.descriptors() == before
