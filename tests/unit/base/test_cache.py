"""What is kept is listed with its bytes and its last use, and is removed unless somebody uses it."""

from pathlib import Path

import pytest

from studio.base import cache, leases
from studio.base.cache import Entry
from studio.base.workspace import own_folder

SESSION = own_folder(Path()).name
"""A folder of this process's."""


class Holder:
    pass


@pytest.fixture
def filled(empty_cache: Path, tmp_path: Path) -> Path:
    """A cache with something of every kind."""
    for name, size in {
        "prepared/first/model.safetensors": 3000, "prepared/second/model.safetensors": 2000,
        "prepared/.third.partial-1-00000000/model.safetensors": 9, "survey/a.json": 10, "hidden/x/b": 20,
        "models/c.json": 30, "logs/studio-error.log": 40, "native/d.so": 50,
        f"sessions/{SESSION}/weights.studio": 60,
    }.items():  # fmt: skip
        write(empty_cache / name, size)
    write(tmp_path / "hub" / "models--owner--ours" / "blobs" / "e", 500)
    write(tmp_path / "hub" / "models--owner--theirs" / "blobs" / "e", 700)
    cache.note_download(tmp_path / "hub" / "models--owner--ours", "owner/ours")
    return empty_cache


def write(file: Path, size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(size))


def named(name: str) -> Entry:
    return next(entry for entry in cache.entries() if entry.name == name)


def test_each_kind_is_listed_with_its_bytes_and_only_our_downloads(filled: Path) -> None:
    found = {(entry.kind, entry.name): entry.nbytes for entry in cache.entries()}
    session = SESSION
    assert found == {
        ("downloads", "owner/ours"): 500, ("prepared", "first"): 3000, ("prepared", "second"): 2000,
        ("surveys", "surveys"): 10, ("figures", "figures"): 20, ("facts", "facts"): 30, ("compiled", "compiled"): 50,
        ("logs", "logs"): 40, ("sessions", session): 60,
    }  # fmt: skip
    assert [kind for kind, _ in found] == sorted((kind for kind, _ in found), key=cache.KINDS.index)


def test_what_is_in_use_stays(filled: Path) -> None:
    holder = Holder()
    leases.hold(filled / "prepared" / "first", holder)
    assert named("first").is_in_use
    assert not cache.remove(named("first"))
    session = named(SESSION)
    assert session.is_in_use
    assert not cache.remove(session)
    del holder
    assert cache.remove(named("first"))
    assert not (filled / "prepared" / "first").exists()


def test_what_is_removed_leaves_nothing_and_nothing_else_goes(filled: Path, tmp_path: Path) -> None:
    for name in ("owner/ours", "second", "surveys", "logs"):
        assert cache.remove(named(name))
    assert {entry.name for entry in cache.entries()} >= {"first", "facts", "compiled"}
    assert not {entry.name for entry in cache.entries()} & {"owner/ours", "second", "surveys", "logs"}
    assert not list((tmp_path / "hub").glob("*ours*"))
    assert (tmp_path / "hub" / "models--owner--theirs" / "blobs" / "e").stat().st_size == 700


@pytest.mark.parametrize("folder", ["", "/", "../hub", "models--a--b/..", "{tmp}/precious"])
def test_a_note_that_lies_removes_nothing(filled: Path, tmp_path: Path, folder: str) -> None:
    write(tmp_path / "precious" / "file", 5)
    cache.note_download(Path(folder.format(tmp=tmp_path)), "lie")
    assert "lie" not in {entry.name for entry in cache.entries()}


def test_an_empty_cache_is_an_empty_list(empty_cache: Path) -> None:
    assert cache.entries() == []
