"""``evaluate``: how far a model is from another, and what it can still do. Knows nothing of how that is measured."""

from typing import Annotated, Any

import typer

from studio.base.errors import ModelError
from studio.base.typed_paths import typed_path
from studio.cli.options import AsJson, app
from studio.cli.terminal import Terminal, language, say, terminal
from studio.quantization.scheme import parse_mode

SHORTEST_TEXT = 2_048
"""``long_context.SHORTEST``, which would bring torch."""


@app.command(help=say("help_evaluate"))
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_DIR", help=say("help_evaluated"), show_default=False)],
    against: Annotated[
        str, typer.Option("--against", metavar="MODEL", help=say("help_against"), show_default=False)
    ] = "",
    given: Annotated[
        str | None, typer.Option("--text", metavar="FILE|hf://datasets/…", help=say("help_text"), show_default=False)
    ] = None,
    activations: Annotated[bool, typer.Option("--activations", help=say("help_activations"))] = False,
    kv: Annotated[bool, typer.Option("--kv", help=say("help_kv"))] = False,
    safety: Annotated[bool, typer.Option("--safety", help=say("help_safety"))] = False,
    dialogue: Annotated[bool, typer.Option("--dialogue", help=say("help_dialogue"))] = False,
    longest: Annotated[
        int | None,
        typer.Option("--long", metavar="TOKENS", help=say("help_long"), min=SHORTEST_TEXT, show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        here.starting()
        checks = tuple(name for name, is_asked in (("safety", safety), ("dialogue", dialogue)) if is_asked)
        if activations or kv:
            if checks or longest or against:
                raise ModelError("kinds_alone")
            _tensor_kinds(here, model, given, activations, kv)
        elif not against:
            raise ModelError("against_missing")
        elif checks or longest:
            _abilities(here, model, against, checks, longest or 0)
        else:
            _drift(here, model, against, given)


def _drift(here: Terminal, model: str, against: str, given: str | None) -> None:
    from studio.calibration.texts import BUILTIN
    from studio.checkpoint.recipe import is_compressed, read_recipe
    from studio.cli.report import evaluation_facts, evaluation_rows, heading
    from studio.evaluation.drift import guidance
    from studio.session.whole_jobs import evaluated

    original, drift = here.follow(evaluated(model, against, given))
    facts = {"model": model, "against": against, "text": drift.text or BUILTIN} | evaluation_facts(drift)
    here.answer(facts, heading(original), evaluation_rows(drift))
    folder = typed_path(model)
    if here.as_json or not is_compressed(folder):
        return
    if advice := guidance(parse_mode(read_recipe(folder).choices.mode), language()):
        here.note(advice)


def _tensor_kinds(here: Terminal, model: str, given: str | None, activations: bool, kv: bool) -> None:
    from studio.calibration.texts import BUILTIN
    from studio.cli.evaluation_report import kind_facts, kind_rows
    from studio.cli.report import heading
    from studio.session.abilities import tensor_kinds

    checkpoint, losses = here.follow(tensor_kinds(model, given, activations, kv))
    facts: dict[str, Any] = {"model": model, "text": given or BUILTIN, "kinds": kind_facts(losses)}
    here.answer(facts, heading(checkpoint), kind_rows(losses))
    if any(loss.is_simulated for loss in losses):
        here.note(say("simulated"))


def _abilities(here: Terminal, model: str, against: str, checks: tuple[str, ...], longest: int) -> None:
    from studio.cli.evaluation_report import ability_facts, ability_rows
    from studio.cli.report import heading
    from studio.session.abilities import abilities

    original, done = here.follow(abilities(model, against, checks, longest))
    here.answer({"model": model, "against": against} | ability_facts(done), heading(original), ability_rows(done))
