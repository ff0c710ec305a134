"""A session's interrupted compressions: taken up again, side by side, or given up."""

from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import Cancelled
from studio.checkpoint import row_reader
from studio.compression import compress as compress_module
from studio.session.session import Session
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch, here: None) -> None:
    monkeypatch.setattr(row_reader, "CHUNK_WEIGHTS", 2048)


def half_way(session: Session) -> Any:
    steps = session.compress()
    while True:
        event = next(steps)
        if event.stage == "compress" and event.fraction is not None and event.fraction > 0.5:
            return steps


def weights_file(session: Session) -> bytes:
    assert session.copy.folder is not None
    return (session.copy.folder / "weights.studio").read_bytes()


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("how", ["stop", "close", "another_visitor"])
def test_an_interrupted_compression_is_taken_up_again(
    session: Session, models: dict[str, Path], tmp_path: Path, how: str
) -> None:
    finish(session.compress())
    expected = weights_file(session)
    steps = half_way(session)
    if how == "stop":
        session.jobs.stop("compress")
        with pytest.raises(Cancelled):
            next(steps)
    steps.close()
    other = session
    if how == "another_visitor":
        session.close()
        other = Session(paths=True, workspace=tmp_path / "other")
        finish(other.open(str(models["first"])))
    done = finish(other.compress())
    assert 0 < done.resumed < len(done.plan.assignments)
    assert weights_file(other) == expected
    other.close()


@pytest.mark.usefixtures("_small_pieces")
def test_two_at_the_same_job_do_not_disturb_each_other(
    session: Session, models: dict[str, Path], tmp_path: Path
) -> None:
    other = Session(paths=True, workspace=tmp_path / "other")
    finish(other.open(str(models["first"])))
    ours, theirs = half_way(session), half_way(other)
    finish(ours)
    finish(theirs)
    assert weights_file(session) == weights_file(other)
    assert session.copy.compressed is not None
    assert other.copy.compressed is not None
    assert session.copy.compressed.resumed == other.copy.compressed.resumed == 0
    other.close()


def test_an_error_leaves_nothing_to_go_on_with(
    session: Session, own_cache: Path, monkeypatch: pytest.MonkeyPatch, here: None
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(compress_module, "quantize", fail)
    with pytest.raises(MemoryError):
        finish(session.compress())
    assert not [path for path in own_cache.rglob("*") if ".safetensors" in path.name]
