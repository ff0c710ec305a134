"""``evaluate``: how far a model is from another. Knows nothing of how that is measured."""

from typing import Annotated

import typer

from studio.base.typed_paths import typed_path
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
        from studio.calibration.texts import BUILTIN
        from studio.checkpoint.recipe import is_compressed, read_recipe
        from studio.cli.report import evaluation_facts, evaluation_rows, heading
        from studio.evaluation.drift import guidance
        from studio.session.whole_jobs import evaluated

        original, drift = here.follow(evaluated(model, against, given))
        facts = {"model": model, "against": against, "text": drift.text or BUILTIN} | evaluation_facts(drift)
        here.answer(facts, heading(original), evaluation_rows(drift))
        folder = typed_path(model)
        if as_json or not is_compressed(folder):
            return
        if advice := guidance(parse_mode(read_recipe(folder).choices.mode), language()):
            here.note(advice)
