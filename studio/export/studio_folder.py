"""The studio's own folder: packed safetensors, config, tokenizer, card and recipe; and the one file to download.

Knows no other target.
"""

import importlib.metadata
import json
import platform
import shutil
import zipfile
from pathlib import Path

from studio import __version__
from studio.base.errors import ResourceError, disk_error
from studio.base.progress import Progress
from studio.base.workspace import partial_in
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import exported_config
from studio.checkpoint.file_names import CARD, CONFIG, INDEX, PACKED
from studio.checkpoint.hub import is_wanted
from studio.checkpoint.recipe import RECIPE, Choices, PackedWeight, Recipe, Source, sha256
from studio.compression.compress import Compressed
from studio.export.compressed_model import CompressedModel, Writing
from studio.export.model_card import model_card
from studio.export.target import Target
from studio.planning.plan import Assignment, Plan

COPY_BYTES = 16 << 20


def write_folder(checkpoint: Checkpoint, compressed: Compressed, folder: Path, calibration: str = "") -> Path:
    """Make ``folder`` a complete export around the packed file, which is moved into it, and return it.

    ``calibration`` says what a calibrated method read. Everything is made beside it and put in place by one rename, so
    that a folder under this name is always whole. Raises ResourceError for a full disk or a folder that has files in it
    already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ResourceError("folder_not_empty", path=str(folder))
    partial = partial_in(folder.parent, folder.name)
    try:
        partial.mkdir(parents=True)
        for file in sorted(checkpoint.path.iterdir()):
            if file.is_file() and is_wanted(file.name) and file.name != INDEX:
                shutil.copyfile(file, partial / file.name)
        config = exported_config(read_json(checkpoint.path / CONFIG))
        words = json.dumps(config, indent=2, ensure_ascii=False)
        (partial / CONFIG).write_bytes(words.encode("utf-8", "backslashreplace"))  # half a character as JSON escapes it
        shutil.move(compressed.file, partial / PACKED)
        recipe = _recipe(checkpoint, compressed, partial, calibration)
        (partial / RECIPE).write_text(recipe.model_dump_json(indent=1), encoding="utf-8")
        card = model_card(recipe, compressed.plan.weights, checkpoint.can_chat)
        (partial / CARD).write_text(card, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    except OSError as error:
        raise disk_error(error, folder) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def archive(folder: Path, file: Path) -> Writing:
    """Pack a folder into one zip, stored (packed weights do not shrink), yielding the bytes done.

    Closing the generator stops it; an unfinished file is removed. Raises ResourceError for a full disk.
    """
    members = sorted(path for path in folder.iterdir() if path.is_file())
    total = sum(member.stat().st_size for member in members)
    done = 0
    partial = file.with_suffix(".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as out:
            for member in members:
                with (
                    member.open("rb") as source,
                    out.open(f"{file.stem}/{member.name}", "w", force_zip64=True) as target,
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


def _recipe(checkpoint: Checkpoint, compressed: Compressed, folder: Path, calibration: str) -> Recipe:
    plan = compressed.plan
    return Recipe(
        source=Source(
            model=checkpoint.name if checkpoint.base_model else Path(checkpoint.name).resolve().name,
            revision=checkpoint.revision,
            format=checkpoint.source_format,
            base_model=checkpoint.base_model,
            license=checkpoint.license,
        ),
        choices=Choices.model_validate(plan.choice.facts() | {"calibration": calibration}),
        weights=tuple(_weight(a, compressed) for a in plan.assignments if a.scheme is not None),
        original_bytes=plan.original_bytes,
        compressed_bytes=plan.compressed_bytes,
        versions={"quantization-studio": __version__, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("torch", "transformers", "safetensors")},
        sha256={file.name: sha256(file) for file in sorted(folder.iterdir())},
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
    return archive(model.folder, file)


TARGET = Target("studio", suffix=".zip", refusal=_holds, size=lambda plan: plan.compressed_bytes, write=_zipped)
