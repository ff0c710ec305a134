"""``inspect``: how a model came, tensor by tensor, from its headers; and how far that is from its original.

Knows no formats."""

from typing import Annotated

import typer

from studio.cli.options import AsJson, app
from studio.cli.terminal import say, terminal


@app.command(help=say("help_inspect"))
def inspect(
    model: Annotated[str, typer.Argument(metavar="FILE|FOLDER|HUB-ID", help=say("help_inspected"), show_default=False)],
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="MODEL", help=say("help_inspect_against"), show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help=say("help_inspect_all"))] = False,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        from studio.checkpoint.provenance import provenance
        from studio.cli.inspect_report import facts_of, heading_of, rows_of

        found = provenance(model)
        tensors, errors = list(found.tensors), None
        if against is not None:
            here.starting()
            from studio.session.compared import compared

            tensors, errors = here.follow(compared(model, against))
        facts = facts_of(found, tensors, errors) | ({} if against is None else {"against": against})
        here.answer(facts, heading_of(found), rows_of(found, tensors, errors, every))
