"""``targets``: which programs' files can hold a plan, or a compressed folder, with exact bytes. Writes nothing.

Knows no target by name.
"""

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.base.typed_paths import typed_path
from studio.cli.opened import note_part
from studio.cli.options import AsJson, Chosen, app, with_choice
from studio.cli.terminal import language, say, terminal
from studio.planning.choice import Choice

if TYPE_CHECKING:
    from studio.export.holding import Held


@app.command(help=say("help_targets"))
@with_choice()
def targets(
    source: Annotated[str, typer.Argument(metavar="DIR_OR_MODEL", help=say("help_targets_source"), show_default=False)],
    chosen: Chosen,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        here.starting()
        from studio.checkpoint.recipe import is_compressed
        from studio.cli.report import heading, model_facts
        from studio.session.holding import held

        checkpoint, plan, found = here.follow(
            held(source, Choice.of(**chosen), bool(chosen), keep_group_size="group_size" in chosen)
        )
        note_part(here, checkpoint)
        for each in found:
            for caution in each.cautions:
                here.note(f"{each.target.name}: {caution.sentence(language())}")
        anew = ["--from-original"] if is_compressed(typed_path(source)) else []
        facts = model_facts(checkpoint) | {"plan": plan.choice.label, "targets": [_facts(each, anew) for each in found]}
        rows = [
            (say("targets_plan"), plan.choice.label),
            *((each.target.name, _said(each, [source, *anew])) for each in found),
        ]
        here.answer(facts, heading(checkpoint), rows)


def _facts(each: "Held", anew: list[str]) -> dict[str, Any]:
    """Return a target's row for ``--json``."""
    choice = each.becomes
    return {
        "target": each.target.name,
        "holds": "as_it_is" if each.is_lossless else "no" if each.plan is None else "converted",
        "bytes": each.nbytes,
        "exact": each.plan is not None and each.plan.is_exact,
        "bits_per_weight": each.bits_per_weight,
        "becomes": None if choice is None else choice.label,
        "arguments": [*each.arguments, *anew] if each.arguments else [],
        "reason": None
        if each.reason is None
        else {"key": each.reason.key, "message": each.reason.sentence(language())},
        "cautions": [{"key": caution.key, "message": caution.sentence(language())} for caution in each.cautions],
    }


def _said(each: "Held", source: list[str]) -> str:
    """Return a target's row to be read."""
    if each.plan is None or each.nbytes is None:
        assert each.reason is not None
        return say("targets_not", reason=each.reason.sentence(language()))
    about = "" if each.plan.is_exact else "~"
    size = {"bytes": f"{about}{each.nbytes:,}", "bits": f"{each.bits_per_weight:.2f}"}
    if each.becomes is None:
        return say("targets_as_it_is", **size)
    options = shlex.join([*source, *each.arguments])
    return say("targets_becomes", scheme=each.becomes.label, options=options, **size)
