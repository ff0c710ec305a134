"""How long is left: what was expected, corrected by what has gone, and by the last time."""

import pytest

from studio.session import expected
from studio.session.expected import STEPS, Expected, took
from studio.session.session import Session

SECONDS = Expected({"compress": 40.0, "samples": 5.0, "drift": 15.0})


def test_what_is_left_of_a_step_follows_its_own_pace() -> None:
    assert SECONDS.total == 60
    assert SECONDS.remaining("compress", 0.0, 10) == 30 + 20
    assert SECONDS.remaining("compress", 0.5, 40) == 40 + 20  # twice as slow as expected
    assert SECONDS.remaining("drift", 1.0, 15) == 0


def test_the_last_time_is_heeded_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected, "_SLOWER", {})
    took("drift", 30, 10)
    took("samples", 1e6, 1)
    took("compress", 5, 0)
    assert expected._SLOWER == {"drift": 3.0, "samples": 20.0}


def test_without_a_model_nothing_takes_time() -> None:
    assert expected.expected(Session(), 3) == Expected(dict.fromkeys(STEPS, 0.0))
    assert expected.whole_drift(Session()) == 0
