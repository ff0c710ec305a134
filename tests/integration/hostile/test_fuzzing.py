"""What was found by ``make fuzz`` is tried again, and a few inputs of fixed numbers beside it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fuzz import __main__, child
from tests.fuzz.__main__ import SHORT
from tests.fuzz.child import drawn
from tests.fuzz.spoiling import spoiled_bytes, spoiled_json
from tests.fuzz.targets import TARGETS, Target


def test_what_is_spoiled_at_random_is_read_or_refused() -> None:
    """In a process that has computed nothing yet, for each target is forked."""
    program = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", "--short"]
    ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=850, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("all read or refused") == len(SHORT)


def test_a_number_names_its_inputs() -> None:
    assert drawn(3, 20) == drawn(3, 20)
    assert drawn(3, 20) != drawn(4, 20)
    sound = b'{"a": [1, {"b": "c"}], "d": null}'
    every = [(spoiled_json(sound, steps), spoiled_bytes(sound, steps)) for steps in drawn(3, 50)]
    assert len({changed for changed, _ in every}) > 20
    assert len({changed for _, changed in every}) > 20


def test_calls_of_the_page_are_a_target_though_no_short_one() -> None:
    assert {*SHORT, "api"} == set(TARGETS)


def test_a_find_counts_once_and_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds end the process, and every input with an A in it does."""

    def read(content: bytes) -> None:
        if b"A" in content:
            raise RuntimeError(content.decode())

    @contextmanager
    def fragile() -> Iterator[Target]:
        yield Target(b"", lambda _, steps: (b"A", b"B", b"AB", b"B")[steps[0][1] % 4], read)

    monkeypatch.setitem(TARGETS, "fragile", fragile)
    monkeypatch.setattr(child, "SEEDS", tmp_path / "seeds")
    monkeypatch.setattr(child, "drawn", lambda number, count: [[("cut", number + i, 0)] for i in range(count)])
    for content in (b"Aa", b"sound", b"Ab"):
        child.Find(content, "").kept("fragile")
    count, found = __main__.searched("fragile", time.monotonic() + 2, 0, tmp_path)
    assert sorted(find.content for find in found.values()) == [b"A", b"AB", b"Aa", b"Ab"]
    assert count > child.BATCH / 4  # rounds after the finds get on
    assert len(list((tmp_path / "seeds" / "fragile").iterdir())) == 5
