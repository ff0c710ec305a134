"""Paths as people type them, which may be none: too long, of a user who is not there. Knows not what lies there."""

from pathlib import Path


def typed_path(name: str | Path) -> Path:
    """Return the path of this name, with a user's folder for ``~`` where there is one."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def is_there(path: Path) -> bool:
    """Return whether something lies there that this process may look at."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
