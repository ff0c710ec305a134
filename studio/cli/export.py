"""``export``: a compressed folder in the form that another program loads."""

from pathlib import Path
from typing import Annotated

import typer

from studio.base.text import catalogue
from studio.base.typed_paths import typed_path
from studio.cli.options import AsJson, app
from studio.cli.terminal import language, say, terminal


def _targets() -> str:
    """Return the targets as the catalogue names them, which are those registered: help does not wait for torch."""
    titles = [(key.split("."), title) for key, title in catalogue(language()).items()]
    return ", ".join(f"{key[1]} ({title})" for key, title in titles if key[0] == "target" and key[2] == "title")


@app.command(help=say("help_export"))
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help=say("help_export_folder"), show_default=False)],
    to: Annotated[
        str, typer.Option("--to", metavar="TARGET", help=say("help_to", targets=_targets()), show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help=say("help_export_out"), show_default=False)],
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        from studio.base.units import format_bytes
        from studio.checkpoint.recipe import check_files, read_recipe
        from studio.export import targets

        target = targets.target_named(to)
        source, place = typed_path(folder), typed_path(out).resolve()
        check_files(read_recipe(source), source)
        here.follow(targets.export(target, source, place))
        files = [place] if place.is_file() else sorted(place.iterdir())
        nbytes = sum(file.stat().st_size for file in files)
        facts = {"target": target.name, "path": str(place), "bytes": nbytes}
        here.answer(facts, say("exported", size=format_bytes(nbytes), path=place))
