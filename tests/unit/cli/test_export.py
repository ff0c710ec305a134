"""``export``: one object or one sentence, and a file that is whole."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from studio.cli.commands import app
from studio.export.targets import TARGETS
from studio.planning.choice import Choice
from studio.quantization.scheme import Mode
from studio.session.session import Session
from tests.steps import finish


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    session = Session(paths=True, workspace=tmp_path_factory.mktemp("session") / "s")
    finish(session.open(str(tiny_model("llama"))))
    session.planner.choose(Choice(Mode.INT4_SYM, 32))
    finish(session.compress())
    assert session.copy.folder is not None
    return session.copy.folder


def test_it_writes_the_target_and_says_how_large(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.zip"
    result = CliRunner().invoke(app, ["export", str(folder), "--to", "studio", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"target": "studio", "path": str(out), "bytes": out.stat().st_size}
    assert zipfile.is_zipfile(out)


def test_an_unknown_target_names_the_known_ones(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(folder), "--to", "x", "--out", str(tmp_path / "o"), "--json"])
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["key"] == "unknown_target"
    assert all(name in error["message"] for name in TARGETS)


def test_a_damaged_folder_is_refused_by_the_files_name(folder: Path, tmp_path: Path) -> None:
    config = folder / "config.json"
    sound = config.read_bytes()
    config.write_bytes(sound + b" ")
    try:
        result = CliRunner().invoke(app, ["export", str(folder), "--to", "studio", "--out", str(tmp_path / "o")])
    finally:
        config.write_bytes(sound)
    assert result.exit_code == 2
    assert "config.json" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_target() -> None:
    words = CliRunner().invoke(app, ["export", "--help"], terminal_width=400).stdout
    assert all(name in words for name in TARGETS)
