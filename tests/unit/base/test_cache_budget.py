"""The longest unused goes first, until what is wanted fits; what is in use or was touched just now stays."""

import os
import shutil
from pathlib import Path

import pytest

from studio.base import cache_budget, leases
from studio.base.cache import entries
from studio.base.cache_budget import GB, budget, make_room
from studio.base.settings import settings

NAMES = ("oldest", "middle", "newest")


class Holder:
    pass


@pytest.fixture
def folders(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three models of a kilobyte, in a cache that has room for three and a half."""
    monkeypatch.setenv("STUDIO_CACHE_GB", str(3500 / GB))
    settings.cache_clear()
    for age, name in enumerate(reversed(NAMES)):
        folder = empty_cache / "prepared" / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(1000))
        os.utime(folder / "model.safetensors", (1e9 - age, 1e9 - age))
    return empty_cache / "prepared"


def left(folders: Path) -> set[str]:
    return {folder.name for folder in folders.iterdir()}


@pytest.mark.parametrize(
    ("need", "stay"), [(0, NAMES), (500, NAMES), (501, NAMES[1:]), (1501, NAMES[2:]), (3500, ()), (10**6, ())]
)
def test_the_longest_unused_goes_first(folders: Path, need: int, stay: tuple[str, ...]) -> None:
    gone = make_room(need)
    assert left(folders) == set(stay)
    assert {entry.name for entry in gone} == set(NAMES) - set(stay)


def test_what_is_used_counts_as_new_and_what_is_in_use_stays(folders: Path) -> None:
    holder = Holder()
    leases.hold(folders / "oldest", holder)
    leases.touch(folders / "middle")
    make_room(3500)
    assert left(folders) == {"oldest", "middle"}
    make_room(keep=0)  # the owner says so
    assert left(folders) == {"oldest"}


def test_a_full_disk_makes_models_go_too(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(place: object) -> object:
        return shutil._ntuple_diskusage(10**9, 10**9, 1000 * (4 - len(entries())))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setenv("STUDIO_CACHE_GB", "1")
    settings.cache_clear()
    make_room(2500)
    assert left(folders) == {"newest"}


def test_small_files_are_bounded_the_oldest_first(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_budget, "SMALL_BYTES", 25)
    (empty_cache / "survey").mkdir(parents=True)
    for age in range(4):
        file = empty_cache / "survey" / f"{age}.json"
        file.write_bytes(bytes(10))
        os.utime(file, (1e9 - age, 1e9 - age))
    make_room()
    assert {file.name for file in (empty_cache / "survey").iterdir()} == {"0.json", "1.json"}


def test_by_default_a_quarter_of_the_disk(empty_cache: Path) -> None:
    assert budget() == int(shutil.disk_usage(empty_cache.parent).total * 0.25)
