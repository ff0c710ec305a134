"""Folders of this program's own, and removing those of programs that were killed. Knows nothing of what is in them."""

import glob
import os
import re
import shutil
import uuid
from pathlib import Path

import psutil

from studio.settings import settings


def sessions_folder() -> Path:
    """Return where all sessions of this machine keep their files."""
    return settings().cache_dir / "sessions"


def own_folder(parent: Path) -> Path:
    """Return a new name in ``parent`` that begins with this process, for :func:`sweep` to know whose it is."""
    return parent / f"{os.getpid()}-{uuid.uuid4().hex}"


def sweep(parent: Path) -> None:
    """Remove what programs that were killed left in ``parent`` under names of :func:`own_folder`."""
    _remove(parent, "*-*", r"(\d{1,9})-[0-9a-f]{32}")


def partial_in(parent: Path, name: str) -> Path:
    """Return a new hidden name in ``parent`` under which ``name`` is made until it is whole."""
    return parent / f".{name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def sweep_partials(parent: Path, name: str) -> None:
    """Remove what programs that were killed left in ``parent`` under names of :func:`partial_in`."""
    hidden = f".{name}.partial-"
    _remove(parent, f"{glob.escape(hidden)}*", rf"{re.escape(hidden)}(\d{{1,9}})(-[0-9a-f]{{8}})?")


def _remove(parent: Path, names: str, pattern: str) -> None:
    """Remove the folders whose process, the first group of ``pattern``, is no more."""
    for folder in parent.glob(names):
        whose = re.fullmatch(pattern, folder.name)
        if whose is not None and not psutil.pid_exists(int(whose[1])):
            shutil.rmtree(folder, ignore_errors=True)
