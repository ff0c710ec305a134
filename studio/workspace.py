"""Folders of a session's own, and removing those of programs that were killed. Knows nothing of what is in them."""

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
    for folder in parent.glob("*-*"):
        ours = re.fullmatch(r"(\d+)-[0-9a-f]{32}", folder.name)
        if ours is not None and not psutil.pid_exists(int(ours[1])):
            shutil.rmtree(folder, ignore_errors=True)
