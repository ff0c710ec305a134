"""A tiny model with its files here, for the parts of a session by themselves."""

from collections.abc import Callable
from pathlib import Path

import pytest

from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.session.opened_model import OpenedModel
from tests.small import a_few_weights, saved


@pytest.fixture
def model(tmp_path: Path) -> OpenedModel:
    """A few weights that a survey can read."""
    return OpenedModel(saved(tmp_path / "model", a_few_weights()))


@pytest.fixture
def llama(tiny_model: Callable[[str], Path]) -> Checkpoint:
    """One that writes text."""
    return of_folder(tiny_model("llama"))
