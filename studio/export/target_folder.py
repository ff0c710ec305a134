"""Where a command puts its result: a hidden folder until it is whole, then the one that the user named, once.

Knows nothing of what is in it but that the recipe makes it a compressed folder.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from studio.base.errors import ResourceError, disk_error
from studio.base.interrupts import removed_on_leaving
from studio.base.workspace import claimed, sweep_partials
from studio.checkpoint.file_names import RECIPE


@contextmanager
def workspace_for(target: Path) -> Iterator[Path]:
    """Lend a hidden folder on the disk of ``target`` to work in; afterwards it is gone, whatever happened.

    Beside a target that does not exist yet, inside one that does: its parent may belong to someone else. Raises
    ResourceError before the work when the target has files in it or cannot be written.
    """
    missing = [parent for parent in target.parents if not parent.exists()]
    hidden: Path | None = None
    try:
        try:
            for place in (target.parent, target):
                sweep_partials(place, target.name)
            if target.exists() and any(target.iterdir()):
                raise ResourceError("folder_not_empty", path=target)
            hidden = claimed(target if target.exists() else target.parent, target.name)
        except OSError as error:
            raise disk_error(error, target) from error
        if hidden is None:
            raise ResourceError("folder_in_use", path=target)
        with removed_on_leaving(hidden):
            yield hidden
    except ResourceError as error:
        if error.key != "export_disk_full":
            raise
        raise ResourceError("export_disk_full", path=target) from error  # not the hidden folder's name
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):  # one that is not empty holds the finished folder
                parent.rmdir()


def move_in(folder: Path, target: Path) -> None:
    """Put a finished folder in place: by one rename, or file by file into an empty folder.

    The recipe goes last, for a folder counts as compressed once it has one. Raises ResourceError where somebody else
    put files there meanwhile: nothing is ever written over.
    """
    if target.exists() and any(not folder.is_relative_to(file) for file in target.iterdir()):
        raise ResourceError("folder_not_empty", path=target)
    if not folder.is_relative_to(target):
        try:
            folder.replace(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise ResourceError("folder_not_empty", path=target) from error
            raise disk_error(error, target) from error
        return
    for file in sorted(folder.iterdir(), key=lambda file: file.name == RECIPE):
        file.replace(target / file.name)
