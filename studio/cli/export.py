"""``export``: a compressed folder, or a model compressed for it, in the form that another program loads.

Knows no target.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.base.errors import SchemeError
from studio.base.text import catalogue
from studio.base.typed_paths import typed_path
from studio.cli.opened import compressing, note_uncalibrated
from studio.cli.options import AsJson, Calibrate, Chosen, app, with_choice
from studio.cli.terminal import Terminal, language, say, terminal

if TYPE_CHECKING:
    from studio.export.target import Target


def _targets() -> str:
    """Return the targets as the catalogue names them, which are those registered: help does not wait for torch."""
    titles = [(key.split("."), title) for key, title in catalogue(language()).items()]
    return ", ".join(f"{key[1]} ({title})" for key, title in titles if key[0] == "target" and key[2] == "title")


@app.command(help=say("help_export"))
@with_choice()
def export(
    source: Annotated[str, typer.Argument(metavar="DIR_OR_MODEL", help=say("help_export_source"), show_default=False)],
    to: Annotated[
        str, typer.Option("--to", metavar="TARGET[:MIX]", help=say("help_to", targets=_targets()), show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help=say("help_export_out"), show_default=False)],
    chosen: Chosen,
    from_original: Annotated[bool, typer.Option("--from-original", help=say("help_from_original"))] = False,
    pre_tokenizer: Annotated[
        str | None,
        typer.Option("--pre-tokenizer", metavar="NAME", help=say("help_pre_tokenizer"), show_default=False),
    ] = None,
    calibrate: Calibrate = "builtin",
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        here.starting()
        from studio.base.units import format_bytes
        from studio.export import targets

        name, _, mix = to.partition(":")
        target = targets.target_named(name)
        if pre_tokenizer is not None:
            target = targets.with_pre_tokenizer(target, pre_tokenizer)
        place = typed_path(out).resolve()
        chosen |= {"mix": mix} if mix else {}
        model = _original(source) if from_original else source
        with _compressed(here, model, chosen, calibrate, place, target) as folder:
            here.follow(targets.export(target, folder, place))
        files = [place] if place.is_file() else sorted(place.iterdir())
        nbytes = sum(file.stat().st_size for file in files)
        facts = {"target": target.name, "path": str(place), "bytes": nbytes}
        if pre_tokenizer is not None:
            here.note(say("export_pre_tokenizer", name=pre_tokenizer))
        here.answer(facts, say("exported", size=format_bytes(nbytes), path=place))


def _original(source: str) -> str:
    """Return the model that a compressed folder was made from; another source is one. Raises SchemeError for a path."""
    from studio.checkpoint.hub_client import is_repo_id
    from studio.checkpoint.open_model import BUILTIN
    from studio.checkpoint.recipe import is_compressed, read_recipe

    folder = typed_path(source)
    if not is_compressed(folder):
        return source
    made_from = read_recipe(folder).source
    is_on_hub = made_from.model == made_from.base_model and is_repo_id(made_from.model)
    if made_from.model != BUILTIN and not is_on_hub:
        raise SchemeError("original_elsewhere", model=made_from.model)
    return made_from.model


@contextmanager
def _compressed(
    here: Terminal, source: str, chosen: Chosen, calibrate: str, place: Path, target: "Target"
) -> Iterator[Path]:
    """Lend a compressed folder: the one that is named, or one made of the model that is named, gone afterwards.

    A folder is taken as it is: what it was compressed to is not chosen a second time. Raises SchemeError for that.
    """
    from studio.checkpoint.recipe import check_files, is_compressed, read_recipe

    folder = typed_path(source)
    if is_compressed(folder):
        if chosen:
            raise SchemeError("export_chosen", folder=source[:80])
        check_files(read_recipe(folder), folder)
        yield folder
        return
    from studio.export.targets import check_free

    check_free(place)  # before a model is fetched for nothing
    usual: Chosen = {"method": "best"} | ({} if "mode" in chosen else dict(target.usual))
    beside = place.with_name(f"{place.name}.compressed")
    with compressing(here, source, usual | chosen, calibrate, beside) as (session, _):
        note_uncalibrated(here, here.follow(session.compress()))
        assert session.copy.folder is not None
        yield session.copy.folder
