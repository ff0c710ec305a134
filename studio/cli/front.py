"""``front``: size against loss, of plans, mixes and files of others. Knows not how they are measured."""

from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from studio.base.errors import ResourceError, disk_error
from studio.base.typed_paths import typed_path
from studio.cli.options import AsJson, ModelName, app
from studio.cli.serve import PAGE, PAGE_INSTALL
from studio.cli.terminal import Terminal, language, say, terminal
from studio.planning.palettes import PALETTES
from studio.quantization.methods import BEST, parse_method

FilePath = Path | None


@app.command(help=say("help_front"))
def front(
    model: ModelName,
    to: Annotated[str, typer.Option("--to", help=say("help_target", words=", ".join(PALETTES)))] = "gguf",
    method: Annotated[str, typer.Option("--method", help=say("help_front_method"))] = str(BEST),
    points: Annotated[int, typer.Option("--points", min=1, max=40, help=say("help_front_points"))] = 12,
    measure: Annotated[int, typer.Option("--measure", min=0, max=40, help=say("help_front_measure"))] = 0,
    others: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="FILE|FOLDER|HUB-ID", help=say("help_front_with"), show_default=False),
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help=say("help_front_whole"))] = False,
    given: Annotated[
        str | None, typer.Option("--text", metavar="FILE|hf://datasets/…", help=say("help_text"), show_default=False)
    ] = None,
    csv: Annotated[FilePath, typer.Option("--csv", metavar="FILE", help=say("help_front_csv"))] = None,
    html: Annotated[FilePath, typer.Option("--html", metavar="FILE", help=say("help_front_html"))] = None,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        here.starting()
        from studio.calibration.dataset import is_dataset
        from studio.cli.front_report import front_csv, front_facts, front_rows
        from studio.session.front import Asked
        from studio.session.front import front as front_of
        from studio.session.session import Session

        places = [_place(path) for path in (csv, html)]
        if html is not None and not all(map(find_spec, PAGE)):
            raise ResourceError("page_missing", command=PAGE_INSTALL)
        asked = Asked(_target(to), parse_method(method), points, measure, tuple(others or ()), whole)
        with closing(Session(paths=True)) as session:
            if given is not None:  # before a model is fetched for nothing
                session.texts.evaluate_on(given if is_dataset(given) else typed_path(given))
            found = here.follow(front_of(session, model, asked))
        if places[0] is not None:
            _write(here, places[0], front_csv(found))
        if places[1] is not None:
            from studio.ui.front_picture import front_picture

            _write(here, places[1], front_picture(found, language()).to_html(include_plotlyjs=True))
        here.answer(front_facts(found), say("front_heading", model=found.model), front_rows(found))


def _target(name: str) -> str:
    """Return a target's name. Raises SchemeError with the known ones."""
    from studio.export.targets import target_named

    return target_named(name.strip().lower()).name


def _place(path: Path | None) -> Path | None:
    """Return where a file is to be written. Raises ResourceError where something is there, before hours of work."""
    from studio.export.targets import check_free

    if path is None:
        return None
    place = typed_path(path).resolve()
    check_free(place)
    return place


def _write(here: Terminal, place: Path, words: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(words, encoding="utf-8")
    except OSError as error:
        raise disk_error(error, place) from error
    here.note(say("written", path=place))
