"""A folder to be shared: files of one compressed model for several programs, with card, map, recipe and manifest.

Nothing is compressed or fetched for it a second time. Knows no target.
"""

import json
import re
from collections.abc import Generator, Sequence
from pathlib import Path

from studio.base.progress import Progress
from studio.checkpoint.carried import told
from studio.checkpoint.file_names import CARD, MANIFEST
from studio.checkpoint.recipe import RECIPE, Exported, Recipe, sha256
from studio.evaluation.figures import Evaluation
from studio.export.checking import checking
from studio.export.compressed_model import CompressedModel, Writing
from studio.export.map_picture import map_picture
from studio.export.model_card import MAP, export_card
from studio.export.target import Target
from studio.export.targets import DEFAULT as STUDIO
from studio.export.targets import checksum, openable, put_in_place, settled

FORMAT = "quantization-studio-files"


def export_folder(
    chosen: Sequence[Target],
    folder: Path,
    out: Path,
    *,
    check: bool = False,
    names: Sequence[str] = (),
    quality: Evaluation | None = None,
) -> Writing:
    """Write a compressed folder as each of ``chosen`` into the new folder ``out``, yielding the bytes done.

    ``names``: what they are called, by default files after the recipe, folders after their target; ``quality``: what
    was measured of the folder. All is there under this name or nothing. Raises as
    :func:`studio.export.targets.export` does.
    """
    model = openable(folder, list(chosen), out)
    called = names or [f"{model.recipe.name}{each.suffix}" if each.suffix else each.name for each in chosen]
    with put_in_place(out) as place, checking(model.recipe if check else None, folder) as soundness:
        place.mkdir()
        exports, folders, written = [], [], []
        for target, name in zip(chosen, called, strict=True):
            written.append((yield from target.write(model, place / name)))
            if written[-1].is_file():  # one that is a folder is in the manifest, file by file
                exports.append((yield from exported(model, target, written[-1])))
            else:
                folders.append(name)
        write_beside(model, exports, place, quality, folders)
        yield from settled(soundness, *(path for path in place.rglob("*") if path.is_file()))
    return out


def exported(model: CompressedModel, target: Target, file: Path) -> Generator[Progress, None, Exported]:
    """Return what a recipe says of a file that was written."""
    digest = yield from checksum(model, file)
    name = re.sub(r"[^\w .,()+@=-]", "-", file.name)[-200:].lstrip(" .,)+@=-") or "model"
    pre = target.pre_tokenizer
    return Exported(file=name, target=target.name, nbytes=file.stat().st_size, sha256=digest, pre_tokenizer=pre)


def recipe_for(model: CompressedModel, exports: Sequence[Exported]) -> Recipe:
    """Return the recipe that makes these files again."""
    return model.recipe.model_copy(update={"exports": tuple(exports)})


def card_for(
    model: CompressedModel,
    exports: Sequence[Exported],
    has_map: bool = False,
    quality: Evaluation | None = None,
    folders: Sequence[str] = (),
) -> str:
    """Return the card of these files, and of folders that have cards of their own."""
    missing = None if STUDIO in {each.target for each in exports} else told(model.left_out)
    return export_card(
        model.recipe, model.plan.weights, exports, model.checkpoint.can_chat, has_map, quality, folders, missing
    )


def write_beside(
    model: CompressedModel,
    exports: Sequence[Exported],
    place: Path,
    quality: Evaluation | None,
    folders: Sequence[str] = (),
) -> None:
    """Write card, map, recipe and manifest beside files that are there."""
    (place / MAP).write_bytes(map_picture(model.plan, model.recipe.name))
    (place / CARD).write_text(card_for(model, exports, True, quality, folders), encoding="utf-8")
    recipe = recipe_for(model, exports)
    (place / RECIPE).write_text(recipe.model_dump_json(indent=1), encoding="utf-8")
    known = {each.file: each.sha256 for each in exports}
    files = {path.relative_to(place).as_posix(): path for path in sorted(place.rglob("*")) if path.is_file()}
    facts = {
        name: {"bytes": path.stat().st_size, "sha256": known.get(name) or sha256(path)} for name, path in files.items()
    }
    manifest = json.dumps({"format": FORMAT, "format_version": 1, "files": facts}, indent=1)
    (place / MANIFEST).write_text(manifest, encoding="utf-8")
