"""What killed programs left is removed, and nothing else is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio.base.workspace import own_folder, partial_in, sweep, sweep_old, sweep_partials

NAME = "out[1]*"
"""A folder's name that is also a pattern."""


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that is no more."""
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(done.stdout)


def test_partial_folders_of_killed_programs_go(tmp_path: Path, dead: int) -> None:
    mine = partial_in(tmp_path, NAME)
    left = [tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{dead}-"), tmp_path / f".{NAME}.partial-{dead}"]
    others = [
        mine, tmp_path / NAME, tmp_path / f".other.partial-{dead}", tmp_path / f".{NAME}.partial-{dead}-notes",
        tmp_path / f".{NAME}.partial-", tmp_path / f".{NAME}.partial-{'9' * 40}", tmp_path / f".out1.partial-{dead}",
    ]  # fmt: skip
    for folder in (*left, *others):
        (folder / "weights").mkdir(parents=True)
    assert mine != partial_in(tmp_path, NAME)
    sweep_partials(tmp_path, NAME)
    assert set(tmp_path.iterdir()) == set(others)


def test_folders_of_killed_programs_go(tmp_path: Path, dead: int) -> None:
    mine = own_folder(tmp_path)
    left = tmp_path / mine.name.replace(f"{os.getpid()}-", f"{dead}-")
    others = [mine, tmp_path / f"{dead}-notes", tmp_path / f"{'9' * 40}-{mine.name.partition('-')[2]}"]
    for folder in (left, *others):
        (folder / "weights").mkdir(parents=True)
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == set(others)


@pytest.mark.parametrize("is_file", [False, True])
def test_where_there_is_no_folder_nothing_is_left(tmp_path: Path, is_file: bool) -> None:
    if is_file:
        (tmp_path / "parent").write_text("")
    sweep_partials(tmp_path / "parent", NAME)
    sweep(tmp_path / "parent")


def test_what_nobody_changed_for_long_goes_but_not_a_folder_of_ours(tmp_path: Path) -> None:
    mine, old, new = own_folder(tmp_path), tmp_path / "0a1b", tmp_path / "2c3d"
    for folder in (mine, old, new):
        folder.mkdir()
        (folder / "upload.txt").write_text("words")
    for path in (mine / "upload.txt", mine, old / "upload.txt", old, new):
        os.utime(path, (1e9, 1e9))
    sweep_old(tmp_path, 600)
    assert set(tmp_path.iterdir()) == {mine, new}
    sweep_old(tmp_path / "nowhere", 600)


def test_a_folder_of_an_earlier_process_with_our_number_is_nobodys(tmp_path: Path) -> None:
    """In a container every server has the same one."""
    mine, earlier = own_folder(tmp_path), tmp_path / f"{os.getpid()}-{'0' * 32}"
    for folder in (mine, earlier):
        folder.mkdir()
    sweep(tmp_path)
    assert mine.is_dir()
    assert not earlier.exists()
