"""Folders that no other user reads or writes, and seals that nobody else can make."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.base import private_folder
from studio.base.private_folder import KEY_BYTES, code_folder, is_sealed, make_private, seal


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Let this account be another one than the one that made the files, with a place of its own for temporary ones."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    private_folder._instead.cache_clear()
    yield
    private_folder._instead.cache_clear()


def test_a_folder_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    assert mode_of(make_private(tmp_path / "a" / "b")) == 0o700


def test_one_that_others_could_read_is_closed_and_kept(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    tmp_path.chmod(0o755)
    make_private(tmp_path)
    assert mode_of(tmp_path) == 0o700
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_one_for_code_that_others_could_write_to_is_emptied(tmp_path: Path, mode: int) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    (folder / "within").mkdir(parents=True)
    (folder / "planted.so").touch()
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (folder / "link").symlink_to(elsewhere)
    folder.chmod(mode)
    code_folder(folder)
    assert mode_of(folder) == 0o700
    assert list(folder.iterdir()) == []
    assert (elsewhere / "kept").exists()


def test_anothers_folder_is_refused_and_code_goes_elsewhere(
    tmp_path: Path, stranger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tmp_path / "native"
    wanted.mkdir()
    real = Path.stat

    def belongs_to_another(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = real(self, follow_symlinks=follow_symlinks)
        return os.stat_result((*found[:4], found.st_uid + (self == wanted), *found[5:]))

    monkeypatch.setattr(Path, "stat", belongs_to_another)
    with pytest.raises(PermissionError):
        make_private(wanted)
    instead = code_folder(wanted)
    monkeypatch.undo()
    assert instead != wanted
    assert mode_of(instead) == mode_of(instead.parent) == 0o700


def test_a_seal_is_of_one_content_and_one_account(tmp_path: Path) -> None:
    one, other = make_private(tmp_path / "one"), make_private(tmp_path / "other")
    said = seal(one, b"code")
    assert is_sealed(one, b"code", said)
    assert not is_sealed(one, b"planted", said)
    assert not is_sealed(other, b"code", said)
    assert list(one.iterdir()) == []
    [key] = (each for each in tmp_path.iterdir() if each.name == ".one-key")
    assert mode_of(key) == 0o600
    assert len(key.read_bytes()) == KEY_BYTES


def test_a_folder_is_the_same_by_way_of_a_link(tmp_path: Path) -> None:
    folder, link = make_private(tmp_path / "folder"), tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(folder)
    assert is_sealed(link, b"code", seal(folder, b"code"))


def test_a_key_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    folder = make_private(tmp_path / "folder")
    seal(folder, b"code")
    key = tmp_path / ".folder-key"
    key.write_bytes(b"short")
    assert is_sealed(folder, b"code", seal(folder, b"code"))
    assert len(key.read_bytes()) == KEY_BYTES


def test_a_key_that_others_can_read_is_none(tmp_path: Path) -> None:
    folder = make_private(tmp_path / "folder")
    seal(folder, b"code")
    (tmp_path / ".folder-key").chmod(0o644)
    with pytest.raises(PermissionError):
        seal(folder, b"code")
