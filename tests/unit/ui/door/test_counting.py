"""How often somebody did something within a while."""

import pytest

from studio.ui.door import counting
from studio.ui.door.counting import Counting, Held


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_more_than_so_often_has_to_wait_for_the_first_to_be_over() -> None:
    clock = Clock()
    times = Counting(2, 60, clock)
    assert times.count("a") == 0
    clock.now = 10
    assert times.count("a") == 0
    assert times.count("a") == 50
    assert times.wait("a") == 50
    assert times.count("b") == 0
    clock.now = 60
    assert times.count("a") == 0
    assert times.count("a") == 10


def test_a_refusal_is_not_counted() -> None:
    clock = Clock()
    times = Counting(1, 60, clock)
    times.count("a")
    clock.now = 59
    assert times.count("a") == 1
    clock.now = 60
    assert times.count("a") == 0


def test_who_was_quiet_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MAX_KEYS", 2)
    times = Counting(1, 60, Clock())
    for key in "abc":
        times.count(key)
    assert times.wait("a") == 0
    assert times.wait("b") == times.wait("c") == 60


def test_what_is_held_is_given_back() -> None:
    held = Held()
    held.take("a")
    held.take("a")
    held.give("a")
    assert held.of("a") == 1
    held.give("a")
    held.give("a")
    assert held.of("a") == 0
