"""The archive as a visitor's job: cancelled it leaves nothing, and without a compressed copy there is none."""

from pathlib import Path

import pytest

from studio.base.errors import Cancelled, CheckpointError, ModelError
from studio.export.model_folder import files_beside
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


def test_a_link_that_came_after_the_model_was_opened_is_not_copied(
    opened: Session, model: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (model / "special_tokens_map.json").unlink(missing_ok=True)
    (model / "special_tokens_map.json").symlink_to(secret)
    with pytest.raises(CheckpointError) as caught:
        finish(opened.compress())
    assert caught.value.key == "link_out"
    with pytest.raises(CheckpointError):
        files_beside(model)


def test_what_a_visitor_downloads_is_no_other_users(opened: Session, tmp_path: Path) -> None:
    finish(opened.compress())
    finish(opened.copy.archive(tmp_path / "download"))
    assert (tmp_path / "download").stat().st_mode & 0o077 == 0
