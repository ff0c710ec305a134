"""What the studio keeps on disk from one visit to the next: what there is, how large, used when; and removing it.

Knows where each kind lies, nothing of what is in it. Downloads lie in the Hub client's own cache, which other programs
fill too: only those that the studio noted as its own are listed and removed.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from studio.base import leases
from studio.base.json_cache import keep
from studio.base.settings import settings
from studio.base.workspace import is_alive, partial_in

DOWNLOADS, PREPARED, SESSIONS = "downloads", "prepared", "sessions"
APART = (PREPARED, SESSIONS)
"""Kinds whose folders are listed one by one."""
TOGETHER = {
    "surveys": ("survey",),
    "figures": ("costs", "hidden", "inputs", "tokens"),
    "facts": ("models", "digests", "generated"),
    "unfinished": ("unfinished",),
    "compiled": ("native",),
    "logs": ("logs",),
}
"""Kinds of small files -> the folders they lie in; each kind is listed as one."""
KINDS = (DOWNLOADS, PREPARED, *TOGETHER, SESSIONS)
SMALL_BYTES = 200 << 20
"""What the small files of a kind that has no bound of its own may take, and does not grow beyond."""
BOUNDED = ("surveys", "facts", "logs")


@dataclass(frozen=True)
class Entry:
    """One thing that can be removed by itself."""

    kind: str
    name: str
    paths: tuple[Path, ...]
    nbytes: int
    used: float
    """When last, in seconds since the epoch."""

    @property
    def is_in_use(self) -> bool:
        """Whether any process of this machine has it open, or is just about to."""
        if self.kind == SESSIONS:
            return _is_alive(self.paths[0])
        with leases.alone(self.paths[0], fresh=0) as is_free:
            return not is_free


def entries() -> list[Entry]:
    """Return all there is, by kind, the largest of each first."""
    found = [*_downloads(), *_apart(), *_together()]
    return sorted(found, key=lambda entry: (KINDS.index(entry.kind), -entry.nbytes))


def note_download(folder: Path, name: str) -> None:
    """Note that the Hub client's ``folder`` of the model ``name`` was fetched, or used, by the studio."""
    keep(_notes() / f"{folder.name}.json", {"folder": str(folder), "name": name})


def remove(entry: Entry, fresh: float = 0) -> bool:
    """Remove an entry; return False where it is in use, and stays.

    A folder is given another name first: whoever looks for it finds it whole or not at all.
    """
    if entry.kind == SESSIONS and entry.is_in_use:
        return False
    with leases.alone(entry.paths[0], fresh) as is_free:
        if not is_free:
            return False
        for path in entry.paths:
            _remove(path)
    if entry.kind == DOWNLOADS:
        (_notes() / f"{entry.paths[0].name}.json").unlink(missing_ok=True)
    return True


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        with suppress(OSError):
            path.unlink()
        return
    going = partial_in(path.parent, path.name)
    with suppress(OSError):
        path.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def _downloads() -> Iterator[Entry]:
    for note in _notes().glob("*.json"):
        try:
            said = json.loads(note.read_bytes())["figures"]
            folder, name = Path(said["folder"]), str(said["name"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if re.fullmatch(r"(models|datasets)--[\w.-]+", folder.name) and folder.is_dir():
            yield _folder(DOWNLOADS, name, folder)


def _apart() -> Iterator[Entry]:
    for kind in APART:
        with suppress(OSError):
            for folder in (settings().cache_dir / kind).iterdir():
                if folder.is_dir() and not folder.name.startswith("."):
                    yield _folder(kind, folder.name, folder)


def _together() -> Iterator[Entry]:
    for kind in TOGETHER:
        files, nbytes, used = list(files_of(kind)), 0, 0.0
        for file in files:
            with suppress(OSError):  # gone meanwhile
                facts = file.stat()
                nbytes, used = nbytes + facts.st_size, max(used, facts.st_mtime)
        if files:
            yield Entry(kind, kind, tuple(files), nbytes, used)


def files_of(kind: str) -> Iterator[Path]:
    """Yield the files of a kind that is listed as one."""
    for folder in TOGETHER[kind]:
        for place, _, files in os.walk(settings().cache_dir / folder):
            yield from (Path(place) / file for file in files)


def _folder(kind: str, name: str, folder: Path) -> Entry:
    nbytes, newest = 0, 0.0
    for place, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                facts = (Path(place) / file).lstat()
                nbytes, newest = nbytes + facts.st_size, max(newest, facts.st_mtime)
    return Entry(kind, name, (folder,), nbytes, leases.last_used(folder) or newest)


def _notes() -> Path:
    return settings().cache_dir / "fetched"


def _is_alive(folder: Path) -> bool:
    """Return whether the process whose folder this is still runs."""
    whose = re.match(r"(\d{1,9})-", folder.name)
    return whose is not None and is_alive(folder, int(whose[1]))


def total(found: Iterable[Entry]) -> int:
    """Return the bytes of all entries."""
    return sum(entry.nbytes for entry in found)
