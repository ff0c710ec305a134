"""An upload that was read goes, what a program that runs has stays, and a cache over its budget shrinks."""

import os
from pathlib import Path

import pytest

from studio.base.settings import settings
from studio.base.workspace import own_folder
from studio.ui.housekeeping import tidy


def test_old_uploads_and_models_beyond_the_budget_go(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setenv("STUDIO_CACHE_GB", "0")
    settings.cache_clear()
    uploads, prepared = tmp_path / "gradio", empty_cache / "prepared" / "model"
    old, new, export = uploads / "0a1b", uploads / "2c3d", own_folder(uploads)
    for folder in (old, new, export, prepared):
        folder.mkdir(parents=True)
        (folder / "file").write_text("words")
    for path in (old / "file", old, export / "file", export):
        os.utime(path, (1e9, 1e9))
    tidy()
    assert set(uploads.iterdir()) == {new, export}
    assert not prepared.exists()
