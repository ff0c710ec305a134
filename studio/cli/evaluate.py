"""``evaluate``: how far a model is from another."""

from contextlib import closing
from typing import Annotated

import typer

from studio.base.typed_paths import typed_path
from studio.cli.opened import compressed_folder, fetch
from studio.cli.options import AsJson, app
from studio.cli.terminal import language, say, terminal
from studio.quantization.scheme import parse_mode


@app.command(help=say("help_evaluate"))
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_DIR", help=say("help_evaluated"), show_default=False)],
    against: Annotated[str, typer.Option("--against", metavar="MODEL", help=say("help_against"), show_default=False)],
    given: Annotated[
        str | None, typer.Option("--text", metavar="FILE|hf://datasets/…", help=say("help_text"), show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        here.starting()
        from studio.calibration.dataset import is_dataset
        from studio.calibration.texts import BUILTIN
        from studio.checkpoint.recipe import read_recipe
        from studio.cli.report import evaluation_facts, evaluation_rows, heading
        from studio.evaluation.drift import guidance
        from studio.session.session import Session

        with closing(Session(paths=True)) as session:
            if given is not None:  # before a model is fetched for nothing
                session.texts.evaluate_on(given if is_dataset(given) else typed_path(given))
            folder = compressed_folder(model)
            fetch(here, session, against)
            if folder is None:
                with closing(Session(paths=True)) as other:
                    fetch(here, other, model)
                    session.copy.place(other.model.chosen)
            else:
                session.copy.place(folder)
            drift = here.follow(session.measure_drift())
            facts = {"model": model, "against": against, "text": drift.text or BUILTIN} | evaluation_facts(drift)
            here.answer(facts, heading(session.model.chosen), evaluation_rows(drift))
            if folder is None or as_json:
                return
            if advice := guidance(parse_mode(read_recipe(folder).choices.mode), language()):
                here.note(advice)
