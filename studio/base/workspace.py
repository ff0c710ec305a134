"""Folders of this program's own, and removing those of programs that were killed. Knows nothing of what is in them."""

import glob
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from studio.base.settings import settings

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


_OWN = r"(\d{1,9})-[0-9a-f]{32}"
"""The names of :func:`own_folder`."""


_MADE: set[str] = set()
"""Names that this process has given."""


def _made(name: str) -> str:
    _MADE.add(name)
    return name


def sessions_folder() -> Path:
    """Return where all sessions of this machine keep their files."""
    return settings().cache_dir / "sessions"


def own_folder(parent: Path) -> Path:
    """Return a new name in ``parent`` that begins with this process, for :func:`sweep` to know whose it is."""
    return parent / _made(f"{os.getpid()}-{uuid.uuid4().hex}")


def sweep(parent: Path) -> None:
    """Remove what programs that were killed left in ``parent`` under names of :func:`own_folder`."""
    _remove(parent, "*-*", _OWN)


def sweep_old(parent: Path, seconds: float) -> None:
    """Remove the folders in ``parent`` that nobody changed for so long, but for those of programs that still run."""
    for folder in parent.glob("*"):
        with suppress(OSError):
            newest = max((path.lstat().st_mtime for path in (folder, *folder.rglob("*"))), default=0.0)
            if _whose(folder, _OWN) is None and time.time() - newest > seconds and folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)


def partial_in(parent: Path, name: str) -> Path:
    """Return a new hidden name in ``parent`` under which ``name`` is made until it is whole."""
    return parent / _made(f".{name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def claimed(parent: Path, name: str) -> Path | None:
    """Make and return a folder under a name of :func:`partial_in`, None while another run makes the same ``name``.

    Of two that begin at once, one is first: they look and make under a lock of the parent folder.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with locked(parent):
        others = (
            (folder, _whose(folder, _partial(name))) for folder in parent.glob(f"{glob.escape(f'.{name}.partial-')}*")
        )
        if any(pid is not None and is_alive(folder, pid) for folder, pid in others):
            return None
        folder = partial_in(parent, name)
        folder.mkdir()
        return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock of a folder, where the system has such; it is gone with the process."""
    if fcntl is None:
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network's disk may not know locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def sweep_partials(parent: Path, name: str) -> None:
    """Remove what programs that were killed left in ``parent`` under names of :func:`partial_in`."""
    _remove(parent, f"{glob.escape(f'.{name}.partial-')}*", _partial(name))


def _partial(name: str) -> str:
    return rf"{re.escape(f'.{name}.partial-')}(\d{{1,9}})(-[0-9a-f]{{8}})?"


def _whose(folder: Path, pattern: str) -> int | None:
    """Return the process whose folder this is, the first group of ``pattern``; None for a name of another kind."""
    whose = re.fullmatch(pattern, folder.name)
    return None if whose is None else int(whose[1])


def is_alive(folder: Path, pid: int) -> bool:
    """Return whether the process that made a folder still runs.

    In a container a server has the same number each time it is started, so of its own number it knows what it made.
    """
    return folder.name in _MADE if pid == os.getpid() else psutil.pid_exists(pid)


def _remove(parent: Path, names: str, pattern: str) -> None:
    """Remove the folders whose process is no more."""
    for folder in parent.glob(names):
        pid = _whose(folder, pattern)
        if pid is not None and not is_alive(folder, pid):
            shutil.rmtree(folder, ignore_errors=True)
