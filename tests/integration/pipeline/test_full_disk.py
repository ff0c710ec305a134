"""A disk that fills up, or is too small to begin with: one sentence, and nothing is left behind."""

import shutil
import zipfile
from pathlib import Path

import pytest

from studio.base.errors import ResourceError
from studio.session.session import Session
from tests.full_disk import largest_file
from tests.steps import finish
from tests.visits import files, until


@pytest.mark.usefixtures("here")
def test_a_disk_that_fills_up_while_compressing_leaves_nothing(opened: Session, workspace: Path) -> None:
    with largest_file(50_000), pytest.raises(ResourceError) as caught:
        finish(opened.compress())
    assert caught.value.key == "export_disk_full"
    assert files(workspace) == set()
    finish(opened.compress())


def test_a_disk_that_fills_up_while_the_folder_is_made_leaves_nothing(
    opened: Session, model: Path, workspace: Path
) -> None:
    (model / "tokenizer_notes.json").write_text(" " * 300_000)
    with largest_file(200_000), pytest.raises(ResourceError) as caught:
        finish(opened.compress())
    assert caught.value.key == "export_disk_full"
    assert files(workspace) == set()
    finish(opened.compress())


def test_a_disk_that_fills_up_while_archiving_leaves_nothing(opened: Session, tmp_path: Path) -> None:
    finish(opened.compress())
    with largest_file(50_000), pytest.raises(ResourceError) as caught:
        finish(opened.copy.archive(tmp_path / "download"))
    assert caught.value.key == "export_disk_full"
    assert files(tmp_path / "download") == set()
    assert zipfile.is_zipfile(finish(opened.copy.archive(tmp_path / "download")))


def test_a_disk_that_is_too_small_is_found_before_the_work(
    opened: Session, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 64 << 20))
    steps = opened.compress()
    with pytest.raises(ResourceError) as caught:
        until(steps, "compress")
    assert caught.value.key == "export_disk_too_small"
    assert caught.value.values["free"] == "67.1 MB"
    assert files(workspace) == set()
