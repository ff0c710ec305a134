"""What of the cache is in use, by any process of this machine: a lease is a lock that ends with whoever holds it.

A lease is shared; whoever wants to remove something needs its lock alone. Knows nothing of what is leased. On a system
or a disk without such locks nothing can be told to be unused, and so nothing is removed by itself.
"""

import hashlib
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.base.settings import settings

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

TRIES = 10
FRESH_SECONDS = 60.0
"""What was touched so lately may be about to be leased."""


def touch(path: Path) -> None:
    """Note that ``path`` is used now."""
    opened = _opened(path)
    if opened is not None:
        os.close(opened)


def hold(path: Path, holder: object) -> None:
    """Lease ``path`` for as long as the object ``holder`` lives in this process."""
    opened = _opened(path)
    if opened is None:
        return
    if fcntl is not None and not any(_shared(opened) for _ in range(TRIES)):  # just being removed, or no such locks
        os.close(opened)
        return
    weakref.finalize(holder, os.close, opened)


@contextmanager
def alone(path: Path, fresh: float = FRESH_SECONDS) -> Iterator[bool]:
    """Tell whether nobody has a lease of ``path``, nor touched it within ``fresh`` seconds; nobody gets one now."""
    if fcntl is None:
        yield False
        return
    try:
        opened = os.open(_file(path), os.O_RDWR)
    except OSError:  # never leased
        yield True
        return
    try:
        is_free = _locked(opened)
        used = last_used(path) or 0.0
        yield is_free and time.time() - used >= fresh
    finally:
        os.close(opened)


def _shared(opened: int) -> bool:
    """Return whether a lease was had; where another process only looks, it is a moment later."""
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        time.sleep(0.01)
        return False
    return True


def _locked(opened: int) -> bool:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def last_used(path: Path) -> float | None:
    """Return when ``path`` was leased or touched last, in seconds since the epoch; None where it never was."""
    try:
        return _file(path).stat().st_mtime
    except OSError:
        return None


def _opened(path: Path) -> int | None:
    """Return the lease's file, open and new; None where there is no place for one."""
    file = _file(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.utime(file)
        return opened
    except OSError:
        return None


def _file(path: Path) -> Path:
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
    return settings().cache_dir / "leases" / name
