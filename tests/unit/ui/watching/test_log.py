"""A line of JSON for each job."""

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from studio.ui.watching import log
from studio.ui.watching.jobs import Ended

DONE = Ended("compress", 3, 1.23456, "done")
REFUSED = Ended("chat", 4, 0.0, "refused", "empty_prompt")


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    log.end()


def test_a_line_says_what_how_long_and_how() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert json.loads(log.line(REFUSED, at)) == {
        "time": "2026-01-02T03:04:05.000+00:00", "event": "job", "kind": "chat", "visitor": 4, "seconds": 0.0,
        "outcome": "refused", "reason": "empty_prompt",
    }  # fmt: skip
    assert json.loads(log.line(DONE, at))["seconds"] == 1.235


def test_a_file_of_lines_is_the_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "jobs.jsonl"
    log.begin(str(file))
    log.write(DONE)
    log.write(REFUSED)
    assert [json.loads(line)["kind"] for line in file.read_text().splitlines()] == ["compress", "chat"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_lines_go_to_standard_error_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    log.begin("-")
    log.write(DONE)
    assert json.loads(capsys.readouterr().err)["outcome"] == "done"


def test_nothing_is_written_where_nobody_asked(capsys: pytest.CaptureFixture[str]) -> None:
    log.write(DONE)
    assert capsys.readouterr() == ("", "")
