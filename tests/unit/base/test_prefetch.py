"""Work spread over threads comes back in order, not too far ahead, and ends when nobody wants it any more."""

import threading
import time
from collections.abc import Iterator

import pytest

from studio.base.prefetch import in_threads

PATIENCE = 300
"""Seconds that a thread waits for another before the test fails."""


def test_results_come_in_order_whoever_is_first() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number % 4 == 0 else 0)
        return number * number

    with in_threads(slow_at_first, range(50), 4, 8) as results:
        assert [result.result() for result in results] == [number * number for number in range(50)]


def test_several_work_at_once() -> None:
    together = threading.Barrier(3, timeout=PATIENCE)
    with in_threads(lambda _: together.wait(), range(6), 3, 6) as results:
        assert len([result.result() for result in results]) == 6


def test_no_more_is_begun_than_is_asked_for() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with in_threads(lambda number: number, numbers(), 2, 5) as results:
        assert taken == []
        for count in range(1, 10):
            assert next(results).result() == count - 1
            assert len(taken) == 5 + count - 1


def test_the_end_waits_for_nobody() -> None:
    go, begun = threading.Event(), []

    def work(number: int) -> None:
        begun.append(number)
        go.wait(PATIENCE)

    with in_threads(work, range(100), 2, 50) as results:
        first = next(results)
    assert not first.done()
    go.set()
    first.result()
    assert len(begun) <= 4


def test_what_one_raises_is_raised_where_it_is_asked_for() -> None:
    with in_threads(lambda number: 1 // number, [1, 0, 1], 2, 3) as results:
        assert next(results).result() == 1
        with pytest.raises(ZeroDivisionError):
            next(results).result()
        assert next(results).result() == 1
    nothing: list[int] = []
    with in_threads(lambda number: number, nothing, 2, 3) as none:
        assert list(none) == []
