"""What is made ready before the page is served."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import ResourceError
from studio.base.settings import settings
from studio.ui.launch import _close_folders, _watching
from studio.ui.watching import jobs, log


class Nobody:
    def count(self) -> int:
        return 0


CALLS: Any = Nobody()


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(jobs, "_listeners", [])
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # as it was, afterwards
    yield
    log.end()


def test_what_visitors_send_and_make_is_closed_to_others(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    _close_folders()
    page = Path(os.environ["GRADIO_TEMP_DIR"])
    assert page == empty_cache / "page"
    assert {folder.stat().st_mode & 0o777 for folder in (page, empty_cache / "sessions")} == {0o700}


def test_the_owners_own_folder_stays_as_it_is(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    tmp_path.chmod(0o755)
    _close_folders()
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_cache_that_is_no_folder_stops_nothing_yet(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_cache.write_text("")
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    _close_folders()
    assert "GRADIO_TEMP_DIR" not in os.environ


@pytest.mark.parametrize(("host", "is_told"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_page_for_others_tells_of_each_job_by_itself(
    empty_cache: Path, host: str, is_told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    settings().host = host
    _watching(CALLS)
    for listener in jobs._listeners:
        listener(jobs.Ended("chat", 1, 0.5, "done"))
    assert bool(capsys.readouterr().err) is is_told


def test_a_port_for_counters_that_somebody_has_is_a_sentence(empty_cache: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings().metrics_port = taken.getsockname()[1]
        with pytest.raises(ResourceError) as caught:
            _watching(CALLS)
    assert caught.value.key == "cannot_serve"
