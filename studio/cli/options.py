"""The terminal's program, and the options that several of its commands have. Knows no command."""

from typing import Annotated

import typer

from studio.cli.terminal import say
from studio.quantization.methods import Method
from studio.quantization.scheme import Mode, backup_modes

app = typer.Typer(
    help=say("help"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help=say("help_model"), show_default=False)]
ModeName = Annotated[str, typer.Option("--mode", help=say("help_mode", modes=", ".join(Mode)))]
GroupSize = Annotated[int | None, typer.Option("--group-size", help=say("help_group_size"), show_default=False)]
Ratio = Annotated[float, typer.Option("--ratio", help=say("help_ratio"))]
Backup = Annotated[
    str | None, typer.Option("--backup", help=say("help_backup", backups=", ".join(backup_modes())), show_default=False)
]
GroupSizeFallback = Annotated[str, typer.Option("--misfit", help=say("help_misfit"))]
AllLayers = Annotated[bool, typer.Option("--all-layers", help=say("help_all_layers"))]
By = Annotated[str | None, typer.Option("--sensitivity", help=say("help_sensitivity"), show_default=False)]
Pins = Annotated[list[str] | None, typer.Option("--pin", help=say("help_pin"), show_default=False)]
Ignored = Annotated[list[str] | None, typer.Option("--ignore", help=say("help_ignore"), show_default=False)]
MethodName = Annotated[str, typer.Option("--method", help=say("help_method", methods=", ".join(("best", *Method))))]
Calibrate = Annotated[
    str, typer.Option("--calibrate", metavar="builtin|generated|FILE|hf://datasets/…", help=say("help_calibrate"))
]
AsJson = Annotated[bool, typer.Option("--json", help=say("help_json"))]
