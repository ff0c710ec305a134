"""Work by steps: what is said comes in order, the result at the end, and closing ends it wherever it runs."""

from collections.abc import Callable, Generator

import pytest

from studio.base.steps import relayed, threaded
from tests.steps import finish


def counted(ended: list[str]) -> Generator[int, None, str]:
    try:
        yield from range(3)
        return "done"
    finally:
        ended.append("ended")


def test_steps_are_passed_on_as_they_are_told_and_the_result_as_it_is() -> None:
    steps, ended = relayed(counted([]), str), list[str]()
    assert [next(steps) for _ in range(3)] == ["0", "1", "2"]
    assert finish(relayed(counted(ended), str)) == "done"
    assert ended == ["ended"]


def test_closing_what_passes_on_closes_the_work() -> None:
    ended: list[str] = []
    steps = relayed(counted(ended), str)
    next(steps)
    steps.close()
    assert ended == ["ended"]


def test_a_thread_waits_after_each_thing_it_says() -> None:
    said: list[int] = []

    def work(say: Callable[[int], None]) -> str:
        for number in range(3):
            said.append(number)
            say(number)
        return "done"

    steps = threaded(work)
    for number in range(3):
        assert next(steps) == number
        assert said == list(range(number + 1))
    assert finish(steps) == "done"


def test_what_a_thread_raises_is_raised_here() -> None:
    def work(say: Callable[[int], None]) -> None:
        say(1)
        raise KeyError("lost")

    steps = threaded(work)
    next(steps)
    with pytest.raises(KeyError, match="lost"):
        next(steps)


def test_a_thread_whose_reader_leaves_is_ended_where_it_stands() -> None:
    ended: list[str] = []

    def work(say: Callable[[int], None]) -> None:
        try:
            for number in range(1000):
                say(number)
        finally:
            ended.append("ended")

    steps = threaded(work)
    next(steps)
    steps.close()
    assert ended == ["ended"]
