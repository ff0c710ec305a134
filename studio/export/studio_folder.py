"""The studio's own folder: packed safetensors, config, tokenizer, card and recipe; and the one file to download.

Knows no other target.
"""

import importlib.metadata
import json
import platform
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from studio import __version__
from studio.base.device import device
from studio.base.errors import ResourceError, disk_error
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.workspace import partial_in
from studio.checkpoint.carried import told
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import exported_config
from studio.checkpoint.file_names import CARD, CONFIG, INDEX, LEFT_OUT, PACKED
from studio.checkpoint.headers import read_header
from studio.checkpoint.hub import is_wanted
from studio.checkpoint.recipe import RECIPE, Calibration, Choices, Machine, PackedWeight, Recipe, Source, sha256
from studio.checkpoint.weight_files import listed
from studio.compression.compress import Compressed
from studio.export.compressed_model import CompressedModel, Writing
from studio.export.model_card import model_card
from studio.export.target import Target
from studio.planning.plan import Assignment, Plan

COPY_BYTES = 16 << 20


def write_folder(
    checkpoint: Checkpoint,
    compressed: Compressed,
    folder: Path,
    calibration: Calibration | None = None,
    source: Source | None = None,
) -> Path:
    """Make ``folder`` a complete export around the packed file, which is moved into it, and return it.

    ``calibration`` says what a calibrated method read, ``source`` where the weights came from, if more of it is known
    than the checkpoint says. Everything is made beside it and put in place by one rename, so that a folder under this
    name is always whole. Raises ResourceError for a full disk or a folder that has files in it already, CheckpointError
    for a link out of the model's folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ResourceError("folder_not_empty", path=str(folder))
    partial = partial_in(folder.parent, folder.name)
    try:
        partial.mkdir(parents=True)
        for name in listed(checkpoint.path):  # a link may have come since it was opened
            if is_wanted(name) and name != INDEX:
                shutil.copyfile(checkpoint.path / name, partial / name)
        config = exported_config(read_json(checkpoint.path / CONFIG))
        words = json.dumps(config, indent=2, ensure_ascii=False)
        (partial / CONFIG).write_bytes(words.encode("utf-8", "backslashreplace"))  # half a character as JSON escapes it
        shutil.move(compressed.file, partial / PACKED)
        if compressed.left_out is not None:
            shutil.move(compressed.left_out, partial / LEFT_OUT)
        recipe = _recipe(source or source_of(checkpoint), compressed, partial, calibration)
        (partial / RECIPE).write_text(recipe.model_dump_json(indent=1), encoding="utf-8")
        extra = None if compressed.left_out is None else told(read_header(partial / LEFT_OUT))
        card = model_card(recipe, compressed.plan.weights, checkpoint.can_chat, extra)
        (partial / CARD).write_text(card, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    except OSError as error:
        raise disk_error(error, folder) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def archive(folder: Path, file: Path, name: str = "") -> Writing:
    """Pack a folder into one zip, stored (packed weights do not shrink), yielding the bytes done.

    In it the folder is called ``name``, by default as the file; the same files make the same zip, on any day. Closing
    the generator stops it; an unfinished file is removed. Raises ResourceError for a full disk.
    """
    members = sorted(path for path in folder.rglob("*") if path.is_file())
    total = sum(member.stat().st_size for member in members)
    done = 0
    partial = file.with_suffix(".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as out:
            for member in members:
                inner = member.relative_to(folder).as_posix()
                with (
                    member.open("rb") as source,
                    out.open(f"{name or file.stem}/{inner}", "w", force_zip64=True) as target,
                ):
                    while piece := source.read(COPY_BYTES):
                        target.write(piece)
                        done += len(piece)
                        yield Progress("export", done, total)
        partial.replace(file)
    except OSError as error:
        raise disk_error(error, file) from error
    finally:
        partial.unlink(missing_ok=True)
    return file


def source_of(checkpoint: Checkpoint, files: Mapping[str, str] | None = None) -> Source:
    """Return where a checkpoint's weights come from; ``files``: the checksums of what it is read from, by name."""
    return Source(
        model=checkpoint.name if checkpoint.base_model else Path(checkpoint.name).resolve().name,
        revision=checkpoint.revision,
        format=checkpoint.source_format,
        base_model=checkpoint.base_model,
        license=checkpoint.license,
        languages=checkpoint.languages,
        files=dict(files or {}),
    )


def _recipe(source: Source, compressed: Compressed, folder: Path, calibration: Calibration | None) -> Recipe:
    plan = compressed.plan
    return Recipe(
        source=source,
        choices=Choices.model_validate(plan.choice.facts() | {"calibration": calibration}),
        weights=tuple(_weight(a, compressed) for a in plan.assignments if a.scheme is not None),
        original_bytes=plan.original_bytes,
        compressed_bytes=plan.compressed_bytes,
        versions=versions(),
        sha256={file.name: sha256(file) for file in sorted(folder.iterdir())},
        machine=machine(compressed.threads),
    )


def versions() -> dict[str, str]:
    """Return the versions of the programs that compress here."""
    return {"quantization-studio": __version__, "python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in ("torch", "transformers", "safetensors")
    }


def machine(threads: int) -> Machine:
    """Return what this machine computes with, and on how many threads."""
    where = device()
    name = "cpu" if where.type == "cpu" else torch.cuda.get_device_name(where)
    return Machine(
        device=name,
        processor=torch.backends.cpu.get_cpu_capability(),
        threads=threads,
        native=settings().native,
    )


def _weight(a: Assignment, compressed: Compressed) -> PackedWeight:
    return PackedWeight(
        name=a.layer.name,
        shape=a.layer.matrix,
        scheme=str(a.scheme),
        transposed=a.layer.transposed,
        tied=a.layer.tied,
        relative_error=compressed.relative_error[a.layer.name],
    )


def _holds(plan: Plan, checkpoint: Checkpoint) -> None:
    """Return no reason against any plan: the layout is the studio's own."""


def _zipped(model: CompressedModel, file: Path) -> Writing:
    return archive(model.folder, file, model.recipe.name)


def _zip_bytes(model: CompressedModel) -> int:
    members = sorted(path for path in model.folder.iterdir() if path.is_file())
    return zip_bytes([(f"{model.recipe.name}/{member.name}", member.stat().st_size) for member in members])


def zip_bytes(members: Sequence[tuple[str, int]]) -> int:
    """Return what a zip of stored files takes, by their names and bytes: as Python's zipfile writes it.

    PKZIP's APPNOTE 6.3.9, sections 4.3.7 (30 bytes before each file, and 20 of its size in 64 bits), 4.3.12 (46 for
    each at the end), 4.3.14 to 4.3.16.
    """
    offset = ending = 0
    for name, nbytes in members:
        wide = 2 * (nbytes > zipfile.ZIP64_LIMIT) + (offset > zipfile.ZIP64_LIMIT)
        ending += 46 + len(name.encode()) + (4 + 8 * wide if wide else 0)
        offset += 30 + len(name.encode()) + 20 + nbytes
    is_wide = len(members) > zipfile.ZIP_FILECOUNT_LIMIT or max(offset, ending) > zipfile.ZIP64_LIMIT
    return offset + ending + (56 + 20 if is_wide else 0) + 22


TARGET = Target(
    "studio",
    suffix=".zip",
    refusal=_holds,
    size=lambda plan: plan.compressed_bytes,
    file_size=_zip_bytes,
    write=_zipped,
    carries=lambda model: model.left_out.keys(),
)
