"""Jobs in one line: each in its turn, none kept waiting by one that says nothing, fails or is closed."""

import threading
import time
from collections.abc import Generator

import pytest

from studio.base import fair_turns as turns_module
from studio.base.fair_turns import Turns
from tests.steps import finish


def counted(count: int) -> Generator[int, None, str]:
    yield from range(count)
    return "done"


@pytest.fixture
def _one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "TURN", 0.0)


def test_a_job_alone_is_as_it_would_be_without_a_line() -> None:
    steps = Turns().shared(counted(5))
    assert [next(steps) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert finish(steps) == "done"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_result_comes_back(count: int) -> None:
    turns = Turns()
    assert finish(turns.shared(counted(count))) == "done"
    assert turns.jobs == 0


def test_a_turn_is_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.04, 0.08, 0.12, *[9.0] * 9])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    made: list[int] = []
    steps = Turns().shared(noted(made, 9))
    next(steps)
    assert made == [0, 1, 2]
    steps.close()


def noted(made: list[int], count: int) -> Generator[int, None, None]:
    for i in range(count):
        made.append(i)
        yield i


@pytest.mark.usefixtures("_one_step_a_turn")
def test_jobs_of_two_threads_take_turns() -> None:
    """Each step waits until the other job is in line; a line that did not go on to it would let the same one work."""
    turns, order = Turns(), list[str]()

    def job(name: str) -> Generator[None, None, None]:
        for step in range(20):
            while (step == 0 and turns.jobs < 2) or (turns.jobs == 2 and turns.waiting < 2):
                time.sleep(0)
            order.append(name)
            yield

    threads = [threading.Thread(target=finish, args=(turns.shared(job(name)),)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert "".join(order) in ("ab" * 20, "ba" * 20)


def test_a_listener_who_does_not_come_back_keeps_nobody_waiting() -> None:
    turns = Turns()
    left = turns.shared(counted(5))
    next(left)
    assert turns.jobs == 1
    assert finish(turns.shared(counted(5))) == "done"
    left.close()
    assert turns.jobs == 0


def test_a_job_that_fails_gives_its_turn_away() -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise ValueError("no")

    turns = Turns()
    with pytest.raises(ValueError, match="no"):
        finish(turns.shared(failing()))
    assert (turns.jobs, turns.waiting) == (0, 0)
    assert finish(turns.shared(counted(5))) == "done"


def test_closing_closes_the_job() -> None:
    closed = []

    def job() -> Generator[int, None, None]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    steps = Turns().shared(job())
    next(steps)
    steps.close()
    assert closed == [True]
