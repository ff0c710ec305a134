"""``export``: a compressed folder, or a model compressed for it, in the forms that other programs load.

Knows no target.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.base.errors import SchemeError
from studio.base.text import catalogue, text
from studio.base.typed_paths import typed_path
from studio.cli.opened import compressing, note_uncalibrated
from studio.cli.options import AsJson, Calibrate, Chosen, app, with_choice
from studio.cli.terminal import Terminal, language, say, terminal
from studio.planning.palettes import DEFAULT, PALETTES

if TYPE_CHECKING:
    from studio.evaluation.figures import Evaluation
    from studio.export.target import Target
    from studio.session.session import Session


def _targets() -> str:
    """Return the targets as the catalogue names them, which are those registered: help does not wait for torch."""
    titles = [(key.split("."), title) for key, title in catalogue(language()).items()]
    return ", ".join(f"{key[1]} ({title})" for key, title in titles if key[0] == "target" and key[2] == "title")


@app.command(help=say("help_export"))
@with_choice("target")  # which ``--to`` names
def export(
    source: Annotated[str, typer.Argument(metavar="DIR_OR_MODEL", help=say("help_export_source"), show_default=False)],
    to: Annotated[
        list[str],
        typer.Option("--to", metavar="TARGET[:MIX]", help=say("help_to", targets=_targets()), show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help=say("help_export_out"), show_default=False)],
    chosen: Chosen,
    from_original: Annotated[bool, typer.Option("--from-original", help=say("help_from_original"))] = False,
    pre_tokenizer: Annotated[
        str | None,
        typer.Option("--pre-tokenizer", metavar="NAME", help=say("help_pre_tokenizer"), show_default=False),
    ] = None,
    calibrate: Calibrate = "builtin",
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help=say("help_export_against"), show_default=False)
    ] = None,
    card: Annotated[bool, typer.Option("--card", help=say("help_card"))] = False,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        here.starting()
        from studio.export.targets import check_free

        targets, mix = _named(to, pre_tokenizer)
        place = typed_path(out).resolve()
        check_free(place)  # before a model is fetched for nothing
        model, revision = _original(source) if from_original else (source, None)
        with _compressed(here, model, revision, chosen | mix, calibrate, place, targets) as folder:
            quality = None if against is None else _measured(here, folder, against)
            facts = written(here, targets, folder, place, card, quality)
        if pre_tokenizer is not None:
            here.note(say("export_pre_tokenizer", name=pre_tokenizer))
        here.answer(*facts)


def written(
    here: Terminal,
    targets: "Sequence[Target]",
    folder: Path,
    place: Path,
    card: bool = False,
    quality: "Evaluation | None" = None,
    names: Sequence[str] = (),
) -> tuple[dict[str, Any], str]:
    """Write a compressed folder as ``targets``: as the one file that ``place`` names, or into a folder of that name.

    What it will take is said first, to the byte. Returns what is to be answered.
    """
    from studio.base.units import format_bytes
    from studio.export.bundle import card_for, export_folder, exported, recipe_for
    from studio.export.compressed_model import opened
    from studio.export.targets import export, openable

    model = openable(folder, list(targets), place)
    note_license(here, model.recipe.source.license)
    for target in targets:
        nbytes = target.file_size(model)
        here.note(say("export_size", target=target.name, size=format_bytes(nbytes), bytes=f"{nbytes:,}"))
        for caution in target.cautions(model.plan):
            here.note(caution.sentence(language()))
        missing = target.leaves_out(model)
        if missing is not None:
            here.note(say("export_leaves_out", target=target.name, **missing.words))
    is_alone = len(targets) == 1 and targets[0].suffix in ("", place.suffix.lower())
    if is_alone and targets[0].suffix == "":  # a folder has its own card
        here.follow(export(targets[0], folder, place, check=True))
        nbytes = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        return {"target": targets[0].name, "path": str(place), "bytes": nbytes}, say(
            "exported", size=format_bytes(nbytes), path=place
        )
    if not is_alone:
        here.follow(export_folder(targets, folder, place, check=True, names=names, quality=quality))
        files = sorted(path for path in place.rglob("*") if path.is_file())
        nbytes = sum(file.stat().st_size for file in files)
        facts = {"targets": [target.name for target in targets], "path": str(place), "bytes": nbytes}
        return facts, say("exported", size=format_bytes(nbytes), path=place)
    [target] = targets
    here.follow(export(target, folder, place, check=True))
    model = opened(folder)
    made = here.follow(exported(model, target, place))
    if card:
        place.with_name(f"{place.name}.README.md").write_text(
            card_for(model, [made], quality=quality), encoding="utf-8"
        )
        recipe = recipe_for(model, [made]).model_dump_json(indent=1)
        place.with_name(f"{place.name}.recipe.json").write_text(recipe, encoding="utf-8")
    facts = {"target": target.name, "path": str(place), "bytes": made.nbytes, "sha256": made.sha256}
    return facts, say("exported", size=format_bytes(made.nbytes), path=place)


def note_license(here: Terminal, license: Any) -> None:
    """Say where a license forbids to share what is made of the model."""
    if license.forbids_derivatives:
        here.note(text("model.note_no_derivatives", language(), license=license.name or license.id))


def _named(to: Sequence[str], pre_tokenizer: str | None) -> "tuple[list[Target], Chosen]":
    """Return the targets and the mix that ``--to`` names. Raises SchemeError for two of one kind, or two mixes.

    ``pre_tokenizer`` is for those of them that name one; one of them has to.
    """
    from studio.export.targets import target_named, with_pre_tokenizer

    words = [each.partition(":")[::2] for each in to]
    targets = [target_named(name) for name, _ in words]
    mixes = {mix.lower() for _, mix in words if mix}
    if len(mixes) > 1 or len({target.name for target in targets}) < len(targets):
        raise SchemeError("export_twice", targets=", ".join(to)[:80])
    if pre_tokenizer is not None:
        takes = [target for target in targets if target.with_pre_tokenizer is not None] or targets
        targets = [with_pre_tokenizer(each, pre_tokenizer) if each in takes else each for each in targets]
    return targets, {"mix": mixes.pop()} if mixes else {}


def _measured(here: Terminal, folder: Path, against: str) -> "Evaluation | None":
    """Return how far a compressed folder is from the original."""
    from studio.session.whole_jobs import evaluated

    _, drift = here.follow(evaluated(folder, against, None, with_floor=False))
    return drift.evaluation


def _original(source: str) -> tuple[str, str | None]:
    """Return the model that a compressed folder was made from, with its commit on the Hub; another source is one.

    Raises SchemeError for a path.
    """
    from studio.checkpoint.hub_client import is_repo_id
    from studio.checkpoint.open_model import BUILTIN
    from studio.checkpoint.recipe import is_compressed, read_recipe
    from studio.session.rebuild import commit_of

    folder = typed_path(source)
    if not is_compressed(folder):
        return source, None
    recipe = read_recipe(folder)
    made_from = recipe.source
    is_on_hub = made_from.model == made_from.base_model and is_repo_id(made_from.model)
    if made_from.model != BUILTIN and not is_on_hub:
        raise SchemeError("original_elsewhere", model=made_from.model)
    return made_from.model, commit_of(recipe)


@contextmanager
def _compressed(
    here: Terminal,
    source: str,
    revision: str | None,
    chosen: Chosen,
    calibrate: str,
    place: Path,
    targets: "Sequence[Target]",
) -> Iterator[Path]:
    """Lend a compressed folder: the one that is named, or one made of the model that is named, gone afterwards.

    ``revision``: the model's commit on the Hub, the newest by default.

    A folder is taken as it is: what it was compressed to is not chosen a second time. Raises SchemeError for that.
    """
    from studio.checkpoint.recipe import is_compressed

    folder = typed_path(source)
    if is_compressed(folder):
        if chosen:
            raise SchemeError("export_chosen", folder=source[:80])
        yield folder
        return
    words: Chosen = {k: v for target in targets for k, v in target.usual.items()}
    if "budget" in chosen:
        words = {"target": next((t.name for t in targets if t.name in PALETTES and t.name != DEFAULT), DEFAULT)}
    elif "mode" in chosen:
        words = {}
    needs: Chosen = {k: v for target in targets for k, v in target.needs.items()}
    beside = place.with_name(f"{place.name}.compressed")
    asked = {"method": "best"} | needs | words | chosen
    with compressing(here, source, asked, calibrate, beside, revision) as (session, _):
        _check_held(session, targets)  # before the work: a method that reads a text takes minutes, or hours
        note_uncalibrated(here, here.follow(session.compress()))
        yield _folder(session)


def _check_held(session: "Session", targets: "Sequence[Target]") -> None:
    """Raise the first target's refusal of what is planned, as far as the files that are here tell."""
    plan, checkpoint = session.plan, session.checkpoint
    for target in targets:
        refused = None if plan is None or checkpoint is None else target.refusal(plan, checkpoint)
        if refused is not None:
            raise refused


def _folder(session: "Session") -> Path:
    assert session.copy.folder is not None
    return session.copy.folder
