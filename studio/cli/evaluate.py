"""``evaluate``: how far a model is from another."""

from pathlib import Path
from typing import Annotated

import typer

from studio.base.typed_paths import typed_path
from studio.cli.opened import fetched
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
        from studio.base.steps import relayed
        from studio.calibration.dataset import is_dataset, read_dataset
        from studio.calibration.texts import BUILTIN, read_text
        from studio.chat.columns import compressed_column, original_column
        from studio.checkpoint.checkpoint import read_json
        from studio.checkpoint.config import check_can_chat, load_config
        from studio.checkpoint.recipe import is_compressed, read_recipe
        from studio.cli.report import evaluation_facts, evaluation_rows, heading
        from studio.evaluation.drift import drift, guidance
        from studio.evaluation.evaluate import predictor, text_windows
        from studio.session.events import drift_event
        from studio.session.session import POOL

        name, read = "", None  # before a model is fetched for nothing
        if given is not None and is_dataset(given):
            dataset = read_dataset(given)
            name, read = dataset.name, dataset.text
        elif given is not None:
            name, read = Path(given).name, read_text(typed_path(given))
        folder = typed_path(model)
        if is_compressed(folder):
            check_can_chat(load_config(read_json(folder / "config.json")))
        original = fetched(here, against)
        column = compressed_column(folder) if is_compressed(folder) else original_column(fetched(here, model))
        ids = text_windows(original, read)
        POOL.make_room(column.need)
        found = here.follow(relayed(drift(original, predictor(column.open().decoder), ids, name), drift_event))
        facts = {"model": model, "against": against, "text": name or BUILTIN} | evaluation_facts(found)
        here.answer(facts, heading(original), evaluation_rows(found))
        if (
            is_compressed(folder)
            and not as_json
            and (advice := guidance(parse_mode(read_recipe(folder).choices.mode), language()))
        ):
            here.note(advice)
