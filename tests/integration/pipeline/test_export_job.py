"""The archive as a visitor's job: cancelled it leaves nothing, and without a compressed copy there is none."""

from pathlib import Path

import pytest

from studio.base.errors import Cancelled, ModelError
from studio.session.session import Session
from tests.steps import finish
from tests.visits import files, until


@pytest.mark.parametrize("how", ["stop", "close"])
def test_an_archive_that_is_cancelled_leaves_nothing(opened: Session, tmp_path: Path, how: str) -> None:
    finish(opened.compress())
    steps = opened.copy.archive(tmp_path / "download")
    until(steps, "export")
    if how == "stop":
        opened.jobs.stop("export")
        with pytest.raises(Cancelled):
            next(steps)
    else:
        steps.close()
    assert files(tmp_path / "download") == set()
    assert finish(opened.copy.archive(tmp_path / "download")).is_file()


def test_there_is_no_archive_before_a_compression(opened: Session, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        finish(opened.copy.archive(tmp_path / "download"))
    assert caught.value.key == "nothing_compressed"
