"""A visitor's session with a tiny model to be changed, opened, compressed and exported."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.chat.model_pool import Pool
from studio.session.session import Session
from studio.session.shared import Shared
from tests.steps import finish
from tests.visits import INT8, TinyModel


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def session(workspace: Path, pool: Pool) -> Iterator[Session]:
    visitor = Session(Shared(pool), paths=True, workspace=workspace)
    yield visitor
    visitor.close()


@pytest.fixture
def model(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy of a tiny model, to be changed."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "tiny"))


@pytest.fixture
def opened(session: Session, model: Path) -> Session:
    """A session with the copy chosen, nothing compressed yet."""
    finish(session.open(str(model)))
    return session


@pytest.fixture
def talking(opened: Session) -> Session:
    """A session with both columns ready."""
    opened.planner.choose(INT8)
    finish(opened.compress())
    return opened


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool with nothing in it."""
    empty = Pool()
    yield empty
    for key in list(empty._models):
        empty.drop(key)
