"""Ranges of bytes from a folder's files: what was asked for, or an error; no memory is taken for what is not there."""

from pathlib import Path

import pytest

from studio.checkpoint.byte_ranges import FolderRanges


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    (tmp_path / "b").write_bytes(b"xyz")
    return tmp_path


@pytest.mark.parametrize(("start", "length"), [(0, 100), (0, 0), (99, 1), (10, 20)])
def test_what_is_asked_for_comes(folder: Path, start: int, length: int) -> None:
    with FolderRanges(folder) as ranges:
        assert ranges.read("a", start, length).tolist() == list(range(start, start + length))


def test_what_was_read_stays_as_it_was(folder: Path) -> None:
    with FolderRanges(folder) as ranges:
        first = ranges.read("a", 0, 4)
        ranges.read("a", 4, 4)
        assert bytes(ranges.read("b", 0, 3).tolist()) == b"xyz"
        assert first.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("start", "length"), [(0, 101), (100, 1), (1 << 40, 1), (0, 1 << 60)])
def test_more_than_there_is_is_an_error_before_memory_is_taken(folder: Path, start: int, length: int) -> None:
    with FolderRanges(folder) as ranges, pytest.raises(OSError, match="ends before byte"):
        ranges.read("a", start, length)


def test_a_file_that_is_not_there_is_an_error(folder: Path) -> None:
    with FolderRanges(folder) as ranges, pytest.raises(FileNotFoundError):
        ranges.read("c", 0, 1)


def test_files_are_closed_at_the_end_and_opened_again(folder: Path) -> None:
    ranges = FolderRanges(folder)
    with ranges:
        ranges.read("b", 0, 1)
        opened = ranges._opened["b"]
    assert opened.closed
    with ranges:
        assert ranges.read("b", 2, 1).tolist() == [ord("z")]
