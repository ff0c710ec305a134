"""GGUF -> a folder with safetensors, once. Knows where it is kept and who makes it, nothing of what is in it.

Headers are checked here (:mod:`studio.checkpoint.gguf.model`); the rest is another process's work
(:mod:`studio.checkpoint.gguf.convert`), which ends with nothing left behind when it is no longer wanted.
"""

import json
import shutil
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from studio.base import errors, leases
from studio.base.cache_budget import make_room
from studio.base.errors import CheckpointError, ResourceError, UserError, disk_error
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.units import format_bytes
from studio.base.workers import BACKGROUND, EXIT_GRACE_SECONDS, Ending, Limits, Watch, no_process, start
from studio.base.workspace import partial_in, sweep_partials
from studio.checkpoint.card_facts import languages_of
from studio.checkpoint.checkpoint import Checkpoint, fingerprint, of_folder, read_json
from studio.checkpoint.file_names import STORED
from studio.checkpoint.gguf.model import LANGUAGES, GgufModel, parts_beside, read_gguf_model
from studio.checkpoint.license import License
from studio.checkpoint.stored_as import StoredAs

NOTE = "source.json"
"""Beside the prepared files: what they were made from."""
VERSION = 5
"""Of what is prepared; a folder of another is made anew. The first could hold random numbers for missing tensors, the
third did not say how each tensor came, the fourth forgot what the file says of its license and had a token too many."""
SMALL_FILES = 64 << 20
"""Bytes that config, tokenizer and the like may take."""
TICK = 0.4
"""Seconds between signs of life, so that a page can show them."""


def prepared_folder(file: Path) -> Path:
    """Return where the safetensors form of this .gguf file, of all its parts, is or will be kept."""
    parts = parts_beside(file)
    return settings().cache_dir / "prepared" / f"{parts[0].stem[:60]}-{fingerprint(parts)}"


def prepare(file: Path, name: str | None = None) -> Generator[Progress, None, Checkpoint]:
    """Yield each step and return the checkpoint of a .gguf file, converting it on the first visit.

    The original at 16 bits is the dequantized file, each tensor in the 16-bit type that changes it least. Raises
    CheckpointError for a file that is not GGUF, is cut short, lacks a part, or has an architecture transformers cannot
    read; ResourceError where there is no room.
    """
    if not file.is_file():
        raise CheckpointError("missing_file", file=file.name)
    folder = prepared_folder(file)
    leases.touch(folder)
    if not _is_whole(folder):
        model = read_gguf_model(file, keep=(LANGUAGES,))
        make_room(2 * model.weights + SMALL_FILES)
        try:
            _check_disk(folder, 2 * model.weights + SMALL_FILES)
            lock = FileLock(folder.parent / f".{folder.name}.lock", blocking=False, thread_local=False)
            yield from _locked(lock)
            try:
                if not _is_whole(folder):  # another process may have made it meanwhile
                    note = {"format": model.format, "bytes": model.nbytes, "version": VERSION} | _said(model)
                    yield from _made(model, folder, note)
            finally:
                lock.release()
        except OSError as error:
            raise disk_error(error, folder) from error
    made_from = read_json(folder / NOTE)
    found = of_folder(
        folder,
        name or str(file),
        source_format=str(made_from["format"]),
        source_bytes=int(made_from["bytes"]),
        was_stored=_stored(folder),
    )
    return replace(found, license=License.of(made_from), languages=languages_of(made_from))


def _said(model: GgufModel) -> dict[str, object]:
    """Return license and languages as the note has them: what can be no name of one is left out."""
    license = License.of(model.card)
    return {"license": license.id, "license_name": license.name, "language": list(languages_of(model.card))}


def _stored(folder: Path) -> dict[str, StoredAs]:
    """Return how each tensor lay in the file."""
    said = read_json(folder / STORED)
    return {name: StoredAs(name, kind, tuple(shape), nbytes) for name, (kind, shape, nbytes) in said.items()}


def _is_whole(folder: Path) -> bool:
    """Return whether a folder was prepared to its end, by this version."""
    return (folder / NOTE).is_file() and read_json(folder / NOTE).get("version") == VERSION


def _locked(lock: FileLock) -> Generator[Progress, None, None]:
    """Wait until no other process is at this file."""
    while True:
        try:
            lock.acquire()
            return
        except Timeout:
            yield Progress("reading")
            time.sleep(TICK)


def _made(model: GgufModel, folder: Path, note: dict[str, Any]) -> Generator[Progress, None, None]:
    """Make the folder under a hidden name, and give it its own when it is whole."""
    sweep_partials(folder.parent, folder.name)
    partial = partial_in(folder.parent, folder.name)
    partial.mkdir()
    try:
        yield from _converted(model, partial)
        (partial / NOTE).write_text(json.dumps(note))
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _converted(model: GgufModel, folder: Path) -> Generator[Progress, None, None]:
    """Run the converting process, yielding its steps; it is killed when this is closed."""
    try:
        names = str(model.file.absolute()), str(folder.absolute())
        child = start("studio.checkpoint.gguf.convert:serve", *names, limits=Limits(niceness=BACKGROUND))
    except OSError as error:
        raise no_process(error) from error
    step, heard = "reading", b""
    try:
        child.socket.settimeout(TICK)
        watch = Watch(child.pid)
        while True:
            yield Progress(step)
            try:
                piece = child.socket.recv(1 << 16)
            except TimeoutError:
                watch.look()
                if watch.is_hung:
                    raise _ended(child.ended(), model.file, model.tokenizer_seconds) from None
                continue
            except OSError:
                piece = b""
            if not piece:
                raise _ended(child.ended(EXIT_GRACE_SECONDS), model.file, model.tokenizer_seconds)
            *lines, heard = (heard + piece).split(b"\n")
            for said in map(json.loads, lines):
                if "error" in said:
                    raise _error(said)
                if "done" in said:
                    return
                step = str(said["step"])
    finally:
        child.end()


def _error(said: dict[str, Any]) -> UserError:
    """Return the error that the process ended with."""
    kind: type[UserError] = getattr(errors, str(said["error"]))
    return kind(str(said["key"]), **said["values"])


def _ended(ending: Ending, file: Path, seconds: int) -> UserError:
    """Return the sentence for a process that ended without a word."""
    if ending.was_time:
        return CheckpointError("gguf_tokenizer_slow", file=file.name, seconds=seconds)
    if ending.was_memory:
        return ResourceError("gguf_memory", file=file.name)
    if ending.was_orphaned or ending.was_ended:  # the file is not to blame
        return ending.error()
    return CheckpointError("gguf_ended", file=file.name, reason=ending.reason)


def _check_disk(folder: Path, need: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if need > free:
        raise ResourceError(
            "cache_disk_too_small", path=str(settings().cache_dir), need=format_bytes(need), free=format_bytes(free)
        )
