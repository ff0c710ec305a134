"""Each family's tiny model, compressed once, and a copy to be changed."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from studio.planning.choice import Choice
from studio.session.session import Session
from tests.family_models import Made, save
from tests.steps import finish


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Made]]:
    """Each family compressed once, to 4 bits in groups that divide every width."""
    sessions = []

    @cache
    def make(family: str) -> Made:
        source = save(family, tmp_path_factory.mktemp("source") / family)
        session = Session(paths=True, workspace=tmp_path_factory.mktemp("workspace"))
        sessions.append(session)
        checkpoint = finish(session.open(str(source)))
        session.planner.choose(Choice.of("int4_asym", -1, 1, "int8_asym"))
        finish(session.compress())
        assert session.copy.folder is not None
        return Made(source, checkpoint, session, session.copy.folder)

    yield make
    for session in sessions:
        session.close()


@pytest.fixture
def copied(made: Callable[[str], Made], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a family's folder, to be damaged."""
    return lambda family: Path(shutil.copytree(made(family).source, tmp_path / family))
