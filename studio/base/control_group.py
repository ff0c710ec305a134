"""What the control group of this process lets it take of memory, versions 1 and 2. Linux; elsewhere there is none.

Knows nothing of what takes it.

A group's limit holds for all below it, so every group from this process's own up to the root is looked at. Within a
container the names in ``/proc/self/cgroup`` may be those of the host, and its own group is the root of what it sees.
What a group holds of files counts as free, as the system's own ``MemAvailable`` counts it: it goes when memory is
wanted, and a model that was read from disk would be refused otherwise because it was read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SELF = Path("/proc/self/cgroup")
MOUNTS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class _Version:
    """Where a version of control groups keeps its numbers."""

    mounts: tuple[str, ...]
    limit: str
    used: str
    files: tuple[str, ...]
    """Lines of memory.stat, of this group and all below it."""


UNIFIED = _Version((".", "unified"), "memory.max", "memory.current", ("inactive_file", "active_file"))
FIRST = _Version(
    ("memory",), "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")
)


def free_in_group() -> int | None:
    """Return the bytes that this process may still take by its groups, None where none of them has a limit."""
    try:
        lines = SELF.read_text().splitlines()
    except OSError:
        return None
    frees = [
        free for line in lines for folder, version in _groups(line) if (free := _free(folder, version)) is not None
    ]
    return min(frees, default=None)


def _groups(line: str) -> Iterator[tuple[Path, _Version]]:
    """Yield the folders of a line's group and of those above it: ``4:memory:/a/b`` in version 1, ``0::/a/b`` in 2."""
    _, controllers, name = line.split(":", 2)
    version = UNIFIED if not controllers else FIRST if "memory" in controllers.split(",") else None
    for mount in () if version is None else version.mounts:
        root = (MOUNTS / mount).resolve()
        folder = (root / name.lstrip("/")).resolve()
        if version is not None and root.is_dir():
            inside = folder if folder.is_relative_to(root) and folder.is_dir() else root
            yield from ((each, version) for each in (inside, *inside.parents) if each.is_relative_to(root))


def _free(folder: Path, version: _Version) -> int | None:
    try:
        limit = (folder / version.limit).read_text().strip()
        if not limit.isdecimal():  # "max"
            return None
        used = int((folder / version.used).read_text())
        held = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
        files = sum(int(held.get(name, 0)) for name in version.files)
    except (OSError, ValueError):
        return None
    return max(0, int(limit) - max(0, used - files))
