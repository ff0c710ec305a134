"""Sessions share what they are given: by default, all that the process has."""

from pathlib import Path

from studio.session.session import Session
from studio.session.shared import Shared, of_this_process


def test_a_process_has_one_and_whoever_wants_to_be_alone_another() -> None:
    alone = Shared()
    assert of_this_process() is of_this_process()
    assert alone.pool is not of_this_process().pool
    assert alone.turns is not of_this_process().turns
    assert Shared().pool is not alone.pool


def test_a_session_alone_begins_with_nothing(tmp_path: Path) -> None:
    session = Session(Shared(), workspace=tmp_path / "workspace")
    assert session.checkpoint is None
    assert session.plan is None
    session.close()
