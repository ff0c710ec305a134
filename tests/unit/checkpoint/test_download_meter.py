"""Bytes, speed and what is left, from what came in the last seconds."""

import pytest

from studio.checkpoint.download_meter import Meter

TOTAL = 1_000_000_000


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_speed_and_remaining_time_follow_the_last_seconds() -> None:
    clock = Clock()
    meter = Meter(clock)
    assert meter.progress(0, TOTAL).detail == "0 B / 1 GB"
    clock.now = 0.5
    assert meter.progress(5_000_000, TOTAL).detail == "5 MB / 1 GB", "too soon to say"
    clock.now = 5
    assert meter.progress(50_000_000, TOTAL).detail == "50 MB / 1 GB, 10 MB/s, 1:35"
    for second in range(6, 30):
        clock.now = second
        last = meter.progress(50_000_000 + (second - 5) * 100_000, TOTAL)
    assert last.detail == "52.4 MB / 1 GB, 100 kB/s, 2:37:56", "it has become slow"
    assert last.fraction == pytest.approx(0.0524)


def test_a_download_that_stands_has_no_speed() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.progress(5_000_000, TOTAL)
    clock.now = 8
    assert meter.progress(5_000_000, TOTAL).detail == "5 MB / 1 GB"


def test_patience_is_a_stage_of_its_own() -> None:
    said = Meter().progress(5, TOTAL, waits=61.2)
    assert (said.stage, said.detail, said.done) == ("download_waits", "1:01", 5)
