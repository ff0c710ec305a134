"""The export targets, in the order of their menus, and writing one. A new one is a line here.

The page's menu, the terminal's ``export --to``, the check of the catalogues and the table of the docs follow from it.
Knows nothing of how one is written.
"""

import shutil
from contextlib import suppress
from pathlib import Path

from studio.base.errors import ResourceError, SchemeError, disk_error
from studio.base.workspace import partial_in, sweep_partials
from studio.export import studio_folder
from studio.export.compressed_model import Writing, opened
from studio.export.gguf import target as gguf_target
from studio.export.studio_folder import archive
from studio.export.target import Target

TARGETS: dict[str, Target] = {target.name: target for target in (studio_folder.TARGET, gguf_target.TARGET)}
DEFAULT = studio_folder.TARGET.name


def target_named(name: str) -> Target:
    """Return a target. Raises SchemeError with the known ones for another word."""
    if name not in TARGETS:
        raise SchemeError("unknown_target", target=name[:40], targets=", ".join(TARGETS))
    return TARGETS[name]


def check_free(out: Path) -> None:
    """Raise ResourceError where something is in the way, or the name is none that this disk can hold."""
    try:
        is_taken = out.exists()
    except OSError as error:
        raise disk_error(error, out) from error
    if is_taken:
        raise ResourceError("already_there", path=out)


def with_pre_tokenizer(target: Target, name: str) -> Target:
    """Return a target that names a tokenizer's way of splitting words as it is told. Raises SchemeError."""
    if target.with_pre_tokenizer is None:
        raise SchemeError("no_pre_tokenizer", target=target.name)
    return target.with_pre_tokenizer(name)


def export(target: Target, folder: Path, out: Path) -> Writing:
    """Write a compressed folder as ``target`` to ``out``, a new file or a new folder, yielding the bytes done.

    Under this name there is always all of it or nothing; closing the generator stops it. Raises the target's refusal,
    CheckpointError for a folder that is not whole, ResourceError for a full disk or where something is in the way.
    """
    check_free(out)
    model = opened(folder)
    reason = target.refusal(model.plan, model.checkpoint)
    if reason is not None:
        raise reason
    place = partial_in(out.parent, out.name)
    try:
        sweep_partials(out.parent, out.name)
        place.mkdir(parents=True)
        written = yield from target.write(model, place / out.name)
        if out.exists():
            raise ResourceError("already_there", path=out)
        written.replace(out)
    except OSError as error:
        raise disk_error(error, out) from error
    except ResourceError as error:
        if error.key != "export_disk_full":
            raise
        raise ResourceError("export_disk_full", path=str(out.parent)) from error  # not the hidden folder's name
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return out


def one_file(target: Target, folder: Path, place: Path) -> Writing:
    """Write a target as one file for a browser to fetch into the folder ``place``: one that is a folder is zipped."""
    out = place / f"{folder.name}{target.suffix}"
    yield from export(target, folder, out)
    if target.suffix:
        return out
    try:
        return (yield from archive(out, place / f"{folder.name}.zip"))
    finally:
        with suppress(OSError):
            shutil.rmtree(out)
