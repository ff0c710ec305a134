"""The export targets, in the order of their menus, and writing one. A new one is a line here.

The page's menu, the terminal's ``export --to``, the check of the catalogues and the table of the docs follow from it.
Knows nothing of how one is written.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

from studio.base.errors import ResourceError, SchemeError, disk_error
from studio.base.interrupts import removed_on_leaving
from studio.base.progress import Progress
from studio.base.workspace import claimed, sweep_partials
from studio.export import studio_folder
from studio.export.checking import checking
from studio.export.compressed_model import CompressedModel, Writing, opened
from studio.export.compressed_tensors import target as compressed_tensors_target
from studio.export.gguf import target as gguf_target
from studio.export.mlx import target as mlx_target
from studio.export.onnx import target as onnx_target
from studio.export.openvino import target as openvino_target
from studio.export.studio_folder import archive
from studio.export.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        studio_folder.TARGET,
        gguf_target.TARGET,
        mlx_target.TARGET,
        openvino_target.TARGET,
        onnx_target.TARGET,
        compressed_tensors_target.TARGET,
    )
}
DEFAULT = studio_folder.TARGET.name
PIECE = 8 << 20
TICK = 0.2
"""Seconds between signs of life."""


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


def export(target: Target, folder: Path, out: Path, *, check: bool = False) -> Writing:
    """Write a compressed folder as ``target`` to ``out``, a new file or a new folder, yielding the bytes done.

    Under this name there is always all of it or nothing; closing the generator stops it. ``check``: whether the
    folder's checksums are compared meanwhile. Raises the target's refusal, CheckpointError for a folder that is not
    whole, ResourceError for a full disk or where something is in the way.
    """
    model = openable(folder, [target], out)
    with put_in_place(out) as place, checking(model.recipe if check else None, folder) as soundness:
        written = yield from target.write(model, place)
        yield from settled(soundness, written)
    return out


def openable(folder: Path, chosen: list[Target], out: Path) -> CompressedModel:
    """Return a compressed folder that can be written as all of ``chosen``. Raises as :func:`export` does."""
    check_free(out)
    model = opened(folder)
    for target in chosen:
        reason = target.refusal(model.plan, model.checkpoint)
        if reason is not None:
            raise reason
    return model


@contextmanager
def put_in_place(out: Path) -> Iterator[Path]:
    """Lend a hidden path that becomes ``out`` if all goes well, and is gone if it does not.

    Raises ResourceError, at once where another run is at the same ``out``.
    """
    hidden: Path | None = None
    try:
        sweep_partials(out.parent, out.name)
        hidden = claimed(out.parent, out.name)
        if hidden is None:
            raise ResourceError("folder_in_use", path=out)
        with removed_on_leaving(hidden):
            yield hidden / out.name
            if out.exists():
                raise ResourceError("already_there", path=out)
            (hidden / out.name).replace(out)
            synced(out.parent)
    except OSError as error:
        raise disk_error(error, out) from error
    except ResourceError as error:
        if error.key != "export_disk_full":
            raise
        raise ResourceError("export_disk_full", path=str(out.parent)) from error  # not the hidden folder's name
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)


def settled(soundness: "Future[None]", *written: Path) -> Generator[Progress, None, None]:
    """Wait until the disk has what was written and the source is known to be whole. Raises CheckpointError."""
    for path in written:
        synced(path)
    while not soundness.done():
        yield Progress("export", 1, 1)
        time.sleep(TICK)
    soundness.result()


def synced(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    opened_ = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network's disk may not know it of a folder
            os.fsync(opened_)
    finally:
        os.close(opened_)


def checksum(model: CompressedModel, file: Path) -> Generator[Progress, None, str]:
    """Return the SHA-256 of a file that was written of ``model``; it is read only where the target did not tell."""
    known = model.checksums.get(file)
    if known is not None:
        return known
    found, total = hashlib.sha256(), file.stat().st_size
    with file.open("rb", buffering=0) as stream:
        while piece := stream.read(PIECE):
            found.update(piece)
            yield Progress.of_bytes("export", stream.tell(), total)
    return found.hexdigest()


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
