"""Where a compression writes until it is whole, so that one that was interrupted is taken up again by whoever asks.

Knows nothing of plans; a job is known by its digest.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from studio.base.settings import settings
from studio.base.workspace import locked

KEPT_DAYS = 1
"""How long an interrupted compression can be taken up again."""
KEPT_FILES = 3
"""How many of them, all visitors' together: each holds as much of the disk as its result would."""


@contextmanager
def unfinished(digest: str, workspace: Path) -> Iterator[Path]:
    """Lend the file that a job is written to: the one that an interrupted run of it left, where there is one.

    Such files stand in the cache, so that another session, or the terminal, goes on where this one stopped. On
    another disk than the ``workspace``, in a cache that cannot be written, or while someone else is at the same job,
    it is a file of the session's own, which is gone afterwards.
    """
    shared = settings().cache_dir / "unfinished"
    # Not the thread's but ours: a page's job goes on in another thread at each of its steps.
    lock = FileLock(shared / f"{digest}.lock", blocking=False, thread_local=False)
    if _is_beside(shared, workspace) and _locked(lock):
        try:
            _sweep(shared, digest)
            yield shared / f"{digest}.safetensors"
        finally:
            _release(lock, shared / f"{digest}.safetensors")
        return
    file = workspace / f"{uuid.uuid4().hex}.safetensors"
    try:
        yield file
    finally:
        for left in workspace.glob(f"{file.name}*"):
            left.unlink(missing_ok=True)


def _is_beside(shared: Path, workspace: Path) -> bool:
    """Return whether the folder can be made, on the workspace's disk."""
    try:
        shared.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return shared.stat().st_dev == workspace.stat().st_dev


def _locked(lock: FileLock) -> bool:
    """Return whether the lock is ours now."""
    try:
        with locked(Path(lock.lock_file).parent):
            lock.acquire()
            os.utime(lock.lock_file)  # not to be swept as old
    except (OSError, Timeout):  # held by another, or the folder cannot be written
        lock.release()
        return False
    return True


def _release(lock: FileLock, file: Path) -> None:
    """Give the lock back; its file stays only beside work that can be taken up again.

    Nobody may have opened it and wait to be told that it is theirs while it is removed: hence a lock round both.
    """
    with locked(file.parent):
        if not file.exists():
            with suppress(OSError):
                Path(lock.lock_file).unlink()
        lock.release()


def _sweep(folder: Path, digest: str) -> None:
    """Remove interrupted work that nobody took up again in time, and the oldest of too much; never ``digest``'s."""
    oldest = time.time() - KEPT_DAYS * 86400
    for file in folder.iterdir():
        with suppress(OSError):
            if file.stat().st_mtime < oldest:
                file.unlink()
    left = [file for file in folder.glob("*.safetensors") if file.stem != digest]
    with suppress(OSError):  # one that is taken up or ends just now
        left.sort(key=lambda file: file.stat().st_mtime)
    for file in left[: -(KEPT_FILES - 1)]:
        lock = FileLock(file.with_suffix(".lock"), blocking=False, thread_local=False)
        if _locked(lock):  # nobody is at it
            file.unlink(missing_ok=True)
            for beside in folder.glob(f"{file.name}.*"):  # its journal, and the tensors that go along
                beside.unlink(missing_ok=True)
            _release(lock, file)
