"""A session with the first of three tiny models, two of which have layers of the same names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.session.session import Session
from tests.conftest import save_tiny_model
from tests.steps import finish


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models whose layers have the same names, and one of other names."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_model("llama", folder / "first")
    save_tiny_model("llama", folder / "second", intermediate_size=192)
    save_tiny_model("gpt2", folder / "other")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def session(tmp_path: Path, models: dict[str, Path]) -> Iterator[Session]:
    visitor = Session(paths=True, workspace=tmp_path / "workspace")
    finish(visitor.open(str(models["first"])))
    yield visitor
    visitor.close()
