"""A result is put in its place once, and never over anybody else's."""

import subprocess
import sys
from pathlib import Path

import pytest

from studio.base.errors import ResourceError
from studio.export.target_folder import move_in, workspace_for


def made(hidden: Path, content: str = "ours") -> Path:
    folder = hidden / "done"
    folder.mkdir()
    (folder / "recipe.json").write_text(content)
    return folder


@pytest.mark.parametrize("exists", [False, True])
def test_a_result_is_put_in_place_and_nothing_else_is_left(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "a" / "out"
    if exists:
        target.mkdir(parents=True)
    with workspace_for(target) as hidden:
        move_in(made(hidden), target)
    assert [path.name for path in target.iterdir()] == ["recipe.json"]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("exists", [False, True])
def test_of_two_runs_to_one_place_the_second_is_refused(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "out"
    if exists:
        target.mkdir()
    with workspace_for(target) as hidden:
        with pytest.raises(ResourceError) as caught:
            workspace_for(target).__enter__()
        assert caught.value.key in ("folder_in_use", "folder_not_empty")
        move_in(made(hidden), target)
    assert (target / "recipe.json").read_text() == "ours"


def test_a_run_that_was_killed_does_not_hold_its_place(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (tmp_path / f".out.partial-{gone.stdout.strip()}-01234567").mkdir()
    with workspace_for(tmp_path / "out") as hidden:
        assert list(tmp_path.iterdir()) == [hidden]


@pytest.mark.parametrize("exists", [False, True])
def test_files_that_came_meanwhile_are_not_written_over(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "out"
    if exists:
        target.mkdir()
    with workspace_for(target) as hidden:
        folder = made(hidden)
        target.mkdir(exist_ok=True)
        (target / "recipe.json").write_text("theirs")
        with pytest.raises(ResourceError) as caught:
            move_in(folder, target)
    assert caught.value.key == "folder_not_empty"
    assert (target / "recipe.json").read_text() == "theirs"
