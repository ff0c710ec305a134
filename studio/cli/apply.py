"""``apply``: what a recipe tells, made again, and whether it is the same to the bit. Knows no format."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.base.errors import CheckpointError
from studio.base.typed_paths import typed_path
from studio.cli.export import note_license, written
from studio.cli.options import AsJson, app
from studio.cli.terminal import Terminal, say, terminal

if TYPE_CHECKING:
    from studio.checkpoint.recipe import Recipe


@app.command(help=say("help_apply"))
def apply(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help=say("help_apply_recipe"), show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", help=say("help_apply_out"), show_default=False)
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="MODEL", help=say("help_apply_source"), show_default=False)
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option("--calibrate", metavar="FILE", help=say("help_apply_text"), show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        here.starting()
        from studio.calibration.dataset import is_dataset
        from studio.calibration.texts import BUILTIN, GENERATED
        from studio.checkpoint.file_names import RECIPE
        from studio.checkpoint.recipe import recipe_of
        from studio.export.targets import check_free
        from studio.planning.recipe_plan import choice_of
        from studio.session.rebuild import differences, reasons, rebuilt
        from studio.session.whole_jobs import compressing_into

        file = typed_path(recipe)
        made = recipe_of(file / RECIPE if file.is_dir() else file)
        place = (Path(made.name) if out is None else typed_path(out)).resolve()
        check_free(place)
        text: str | Path | None = calibrate
        if calibrate is not None and calibrate not in (BUILTIN, GENERATED.name) and not is_dataset(calibrate):
            text = typed_path(calibrate)
        here.interrupted = "interrupted_anew" if made.choices.calibration is not None else "interrupted"
        beside = place.with_name(f"{place.name}.compressed") if made.exports else place
        with compressing_into(beside, choice_of(made), BUILTIN) as session:
            done = here.follow(rebuilt(session, made, source, text))
            folder = session.copy.folder
            assert folder is not None
            others = differences(made, folder)
            facts, said = _put(here, made, folder, place)
            others += _other_exports(made, place)
            if others:
                why = "; ".join(reasons(made, done.threads)) or "?"
                raise CheckpointError("apply_differs", path=place, files=", ".join(others)[:200], reasons=why[:300])
            here.note(say("applied_same"))
            here.answer(facts | {"same": True}, said)


def _put(here: Terminal, recipe: "Recipe", folder: Path, place: Path) -> tuple[dict[str, Any], str]:
    """Put what was made in its place: the compressed folder, or the files that were exported of it."""
    from studio.base.units import format_bytes
    from studio.export.target_folder import move_in
    from studio.export.targets import target_named, with_pre_tokenizer

    if recipe.exports:
        targets = [
            with_pre_tokenizer(target_named(each.target), each.pre_tokenizer)
            if each.pre_tokenizer
            else target_named(each.target)
            for each in recipe.exports
        ]
        return written(here, targets, folder, place, names=[each.file for each in recipe.exports])
    note_license(here, recipe.source.license)
    move_in(folder, place)
    nbytes = sum(file.stat().st_size for file in place.iterdir())
    return {"path": str(place), "bytes": nbytes}, say("exported", size=format_bytes(nbytes), path=place)


def _other_exports(recipe: "Recipe", place: Path) -> Sequence[str]:
    """Return the exported files that are not those of the recipe, by name."""
    from studio.checkpoint.recipe import sha256

    files = {each.file: place if place.is_file() else place / each.file for each in recipe.exports}
    return [each.file for each in recipe.exports if sha256(files[each.file]) != each.sha256]
