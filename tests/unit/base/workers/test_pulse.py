"""Which processes hang, by what the system says of them."""

from pathlib import Path
from typing import Any

import pytest

from studio.base.workers import pulse


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += pulse.EVERY
        return self.now


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two children of process 1: numbers 2 and 3."""
    monkeypatch.setattr(pulse, "PROC", tmp_path)
    monkeypatch.setattr(pulse, "time", Clock())
    monkeypatch.setattr(pulse, "HUNG", 20.0)
    monkeypatch.setattr(pulse, "HUNG_ALONE", 100.0)
    for pid in (2, 3):
        (tmp_path / str(pid) / "task" / str(pid)).mkdir(parents=True)
        tell(tmp_path, pid)
    (tmp_path / "1" / "task" / "1").mkdir(parents=True)
    (tmp_path / "1" / "task" / "1" / "children").write_text("2 3 ")
    return tmp_path


def tell(proc: Path, pid: int, state: str = "S", ticks: int = 0) -> None:
    line = f"{pid} (a) b) {state} 1 " + " ".join(["0"] * 9) + f" {ticks} 0 0 0"
    (proc / str(pid) / "stat").write_text(line)
    (proc / str(pid) / "task" / str(pid) / "stat").write_text(line)


def seen(proc: Path, looks: int, pid: int = 2, **told: Any) -> pulse.Watch:
    """Look so often, ``EVERY`` seconds apart; what is told is told before each look, ``ticks`` growing."""
    watch = pulse.Watch(2)
    for i in range(looks):
        if told:
            tell(proc, pid, told.get("state", "S"), i * told.get("ticks", 0))
        watch.look()
    return watch


def test_all_that_do_nothing_hang(proc: Path) -> None:
    assert not seen(proc, 9).is_hung
    assert seen(proc, 15).is_hung


def test_one_that_waits_for_another_does_not_hang_unless_it_takes_too_long(proc: Path) -> None:
    assert not seen(proc, 40, pid=3, ticks=1).is_hung
    assert seen(proc, 60, pid=3, ticks=1).is_hung


def test_one_that_computes_or_waits_for_a_disk_does_not_hang(proc: Path) -> None:
    assert not seen(proc, 60, ticks=1).is_hung
    assert not seen(proc, 60, state="D").is_hung


def test_one_that_waits_for_a_compiler_does_not_hang(proc: Path) -> None:
    (proc / "2" / "task" / "7").mkdir()  # a thread
    (proc / "2" / "task" / "7" / "children").write_text("8 ")
    (proc / "8" / "task" / "8").mkdir(parents=True)
    assert not seen(proc, 60, pid=8, ticks=1).is_hung


def test_one_that_is_stopped_hangs_whatever_others_do(proc: Path) -> None:
    watch = pulse.Watch(2)
    tell(proc, 2, "T")
    for i in range(15):
        tell(proc, 3, ticks=i)
        watch.look()
    assert watch.is_hung


def test_nothing_hangs_where_nothing_is_known(proc: Path) -> None:
    watch = pulse.Watch(4)
    for _ in range(60):
        watch.look()
    assert not watch.is_hung
