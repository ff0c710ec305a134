"""A sound tokenizer, a folder of its own to be spoiled, and limits that are soon reached."""

import shutil
from pathlib import Path

import pytest

from studio.checkpoint.tokenizer import guarded_tokenizer as module
from tests.conftest import tiny_tokenizer


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer") / "tiny"
    tiny_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to be spoiled."""
    shutil.copytree(sound, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time for everything, so that what loops is stopped sooner."""
    monkeypatch.setattr(module, "SECONDS", 0.5)
