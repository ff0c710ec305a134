"""Tensors kept on disk: the same when they come back, none that was changed, no more than there is room for."""

import os
from pathlib import Path

import pytest
import torch

from studio.base.tensor_cache import DIGEST_BYTES, Shelf

FOUND = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5, dtype=torch.bfloat16)}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf", 1 << 20)


def test_what_is_kept_comes_back(shelf: Shelf) -> None:
    assert shelf.recall("model/text") is None
    shelf.keep("model/text", FOUND)
    back = shelf.recall("model/text")
    assert back is not None
    assert back.keys() == FOUND.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in FOUND.items())
    assert [file.name for file in shelf.folder.rglob("*") if file.is_file()] == ["text"]  # nothing half written


@pytest.mark.parametrize("place", [0, DIGEST_BYTES + 3, -1])
def test_a_changed_byte_is_found(shelf: Shelf, place: int) -> None:
    shelf.keep("text", FOUND)
    content = bytearray((shelf.folder / "text").read_bytes())
    content[place] ^= 1
    (shelf.folder / "text").write_bytes(content)
    assert shelf.recall("text") is None


@pytest.mark.parametrize("length", [0, 10, DIGEST_BYTES, 100])
def test_a_file_cut_short_is_found(shelf: Shelf, length: int) -> None:
    shelf.keep("text", FOUND)
    (shelf.folder / "text").write_bytes((shelf.folder / "text").read_bytes()[:length])
    assert shelf.recall("text") is None


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 10_000)
    some = {"x": torch.zeros(750)}  # 3 kB
    for age, name in enumerate(("old", "older", "new")):
        shelf.keep(name, some)
        os.utime(tmp_path / name, (age, age))
    assert shelf.recall("old") is not None  # so that it is "older" that was not used for longest
    shelf.keep("newest", some)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "newest", "old"]


def test_what_is_larger_than_the_shelf_is_not_kept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 1000)
    shelf.keep("small", {"x": torch.zeros(10)})
    shelf.keep("large", {"x": torch.zeros(1000)})
    assert shelf.recall("large") is None
    assert shelf.recall("small") is not None


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    Shelf(tmp_path / "file", 1 << 20).keep("text", FOUND)
    assert Shelf(tmp_path / "file", 1 << 20).recall("text") is None
