"""How large the cache may grow, and what goes when it would be larger: the longest unused first, never what is in use.

Knows nothing of what is kept.
"""

import shutil
from contextlib import suppress
from pathlib import Path

from studio.base import leases
from studio.base.cache import BOUNDED, DOWNLOADS, PREPARED, SMALL_BYTES, Entry, entries, files_of, remove
from studio.base.settings import settings

SHARE = 0.25
"""Of the disk, by default."""
GB = 10**9


def budget() -> int:
    """Return the bytes that models which are kept may take: ``STUDIO_CACHE_GB``, or a share of the disk."""
    said = settings().cache_gb
    return int(_disk().total * SHARE if said is None else said * GB)


def free_bytes(folder: Path | None = None) -> int:
    """Return what is free on the disk of ``folder``, by default the cache's."""
    return _disk(folder).free


def make_room(need: int = 0, keep: int | None = None, disk: Path | None = None) -> list[Entry]:
    """Remove the models unused for longest until ``need`` bytes more are within the budget and free on the disk.

    ``keep``: bytes that may stay, instead of the budget; ``disk``: a folder of the disk that they go to. Returns what
    was removed; what is in use stays, whatever the budget says.
    """
    allowed = budget() if keep is None else keep
    found = sorted((each for each in entries() if each.kind in (DOWNLOADS, PREPARED)), key=lambda each: each.used)
    held, gone = sum(entry.nbytes for entry in found), list[Entry]()
    for entry in found:
        if held + need <= allowed and need <= free_bytes(disk):
            break
        if remove(entry, 0 if keep is not None else leases.FRESH_SECONDS):
            held -= entry.nbytes
            gone.append(entry)
    _bound_small()
    return gone


def _bound_small() -> None:
    """Remove the oldest small files of each kind that has no bound of its own."""
    for kind in BOUNDED:
        seen = []
        for file in files_of(kind):
            with suppress(OSError):
                seen.append((file.stat(), file))
        taken = sum(facts.st_size for facts, _ in seen)
        for facts, file in sorted(seen, key=lambda each: each[0].st_mtime):
            if taken <= SMALL_BYTES:
                break
            with suppress(OSError):
                file.unlink()
            taken -= facts.st_size


def _disk(folder: Path | None = None) -> shutil._ntuple_diskusage:
    folder = (settings().cache_dir if folder is None else folder).absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
