"""How long is left: what was expected, corrected by what has gone, and by the last time."""

from pathlib import Path

import pytest

from studio.calibration.texts import Text
from studio.planning.choice import Choice
from studio.quantization.methods import Method
from studio.quantization.scheme import Mode
from studio.session import expected
from studio.session.expected import STEPS, Expected, compress_seconds, noted_as, took
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


def test_one_method_says_nothing_of_anothers_time() -> None:
    session = Session(choice=Choice(Mode.INT4_ASYM, 64, method=Method.DISTILLED))
    other = Session(choice=Choice(Mode.INT4_ASYM, 64, method=Method.NEAREST))
    assert noted_as("compress", session) != noted_as("compress", other)
    assert noted_as("drift", session) == noted_as("drift", other) == "drift"


def test_a_short_text_takes_less_of_a_method_that_reads_a_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected, "_weights", lambda _: 1_000_000)
    (tmp_path / "long.txt").write_text("word " * 80_000)
    session = Session()
    two_sided, short = (compress_seconds(session, each) for each in (Method.TWO_SIDED, Method.DISTILLED))
    session.texts.calibration = Text("long.txt", tmp_path / "long.txt")
    long = compress_seconds(session, Method.DISTILLED)
    assert two_sided < short < 0.2 * long
    assert compress_seconds(session, Method.TWO_SIDED) == two_sided


def test_without_a_model_nothing_takes_time() -> None:
    assert expected.expected(Session(), 3) == Expected(dict.fromkeys(STEPS, 0.0))
    assert expected.whole_drift(Session()) == 0
