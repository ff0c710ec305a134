"""Work that was interrupted is lent to one at a time, whoever asks, and does not stay for ever."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.compression import resume as unfinished_module
from studio.compression.resume import KEPT_DAYS, KEPT_FILES, unfinished


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def shared(own_cache: Path) -> Path:
    return own_cache / "unfinished"


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_what_was_left_is_lent_again(shared: Path, workspace: Path) -> None:
    with unfinished("job", workspace) as file:
        file.write_text("half")
    with unfinished("job", workspace) as again, unfinished("other", workspace) as other:
        assert again == file
        assert again.read_text() == "half"
        assert other.parent == shared
        assert not other.exists()


def test_while_one_is_at_it_another_has_a_file_of_its_own(shared: Path, workspace: Path) -> None:
    with unfinished("job", workspace) as first, unfinished("job", workspace) as second:
        assert first.parent == shared
        assert second.parent == workspace
        second.write_text("mine")
        second.with_name(f"{second.name}.journal").write_text("mine too")
        first.write_text("half")
    assert list(workspace.iterdir()) == []
    with unfinished("job", workspace) as file:
        assert file.read_text() == "half"


def test_a_job_that_ends_in_another_thread_gives_the_file_back(shared: Path, workspace: Path) -> None:
    """A page calls each step of a job from whichever thread is free."""
    job = unfinished("job", workspace)
    in_a_thread(job.__enter__)
    in_a_thread(lambda: job.__exit__(None, None, None))
    with unfinished("job", workspace) as file:
        assert file.parent == shared


def test_a_failure_gives_the_file_back(shared: Path, workspace: Path) -> None:
    with pytest.raises(ZeroDivisionError), unfinished("job", workspace):
        raise ZeroDivisionError
    with unfinished("job", workspace) as file:
        assert file.parent == shared


@pytest.mark.parametrize("reason", ["another_disk", "a_cache_that_cannot_be_written"])
def test_where_it_cannot_be_shared_it_is_one_s_own(
    empty_cache: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "another_disk":
        monkeypatch.setattr(unfinished_module, "_is_beside", lambda *_: False)
    else:
        empty_cache.write_text("a file where the folder should be")
    with unfinished("job", workspace) as file:
        assert file.parent == workspace
        file.write_text("half")
    assert list(workspace.iterdir()) == []


def test_what_nobody_took_up_again_goes_in_time(shared: Path, workspace: Path) -> None:
    long_ago = time.time() - KEPT_DAYS * 86400 - 60
    for name in ("old", "young"):
        with unfinished(name, workspace) as file:
            file.write_text("half")
            file.with_name(f"{file.name}.journal").write_text("journal")
    for file in shared.glob("old*"):
        os.utime(file, (long_ago, long_ago))
    with unfinished("job", workspace):
        left = {path.name for path in shared.iterdir() if path.suffix != ".lock"}
    assert left == {"young.safetensors", "young.safetensors.journal"}


def test_a_lock_that_is_held_is_not_swept(shared: Path, workspace: Path) -> None:
    """Also where its file is old: it was used before."""
    long_ago = time.time() - KEPT_DAYS * 86400 - 60
    shared.mkdir(parents=True)
    (shared / "job.lock").touch()
    os.utime(shared / "job.lock", (long_ago, long_ago))
    with unfinished("job", workspace), unfinished("other", workspace), unfinished("job", workspace) as second:
        assert second.parent == workspace


def test_only_the_newest_few_are_kept_and_none_that_someone_is_at(shared: Path, workspace: Path) -> None:
    """Each holds as much of the disk as its result would."""
    with unfinished("busy", workspace) as held:
        held.write_bytes(b"at work")
        os.utime(held, (time.time() - 500, time.time() - 500))
        for age in range(6, 0, -1):
            with unfinished(f"job{age}", workspace) as file:
                file.write_bytes(b"left")
                os.utime(file, (time.time() - 60 * age, time.time() - 60 * age))
        left = {file.stem for file in shared.glob("*.safetensors")}
        assert "busy" in left
        assert {"job1", "job2"} < left
        assert len(left - {"busy"}) <= KEPT_FILES


def test_a_job_that_leaves_nothing_leaves_no_lock(shared: Path, workspace: Path) -> None:
    with unfinished("job", workspace) as file:
        file.write_text("half")
        file.unlink()
    assert list(shared.iterdir()) == []
    with unfinished("job", workspace) as file:
        file.write_text("half")
    assert {path.suffix for path in shared.iterdir()} == {".safetensors", ".lock"}


def test_what_goes_along_is_removed_with_its_weights(shared: Path, workspace: Path) -> None:
    for number in range(KEPT_FILES + 1):
        with unfinished(f"job-{number}", workspace) as file:
            file.write_text("half")
            for ending in ("journal", "left-out"):
                file.with_name(f"{file.name}.{ending}").write_text("half")
            os.utime(file, (time.time() - 100 + number,) * 2)
    with unfinished("next", workspace):
        stems = {path.name.split(".")[0] for path in shared.iterdir() if ".safetensors" in path.name}
    assert stems == {f"job-{number}" for number in range(2, KEPT_FILES + 1)}
