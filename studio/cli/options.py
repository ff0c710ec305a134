"""The terminal's program, and the options that several of its commands have. Knows no command."""

import functools
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Annotated, Any

import typer

from studio.base import startup
from studio.cli.terminal import say
from studio.planning.choice import OPTIONS
from studio.planning.option import Option
from studio.quantization.methods import parse_method

app = typer.Typer(
    callback=startup.prepare,  # before a command imports what reads the environment once
    help=say("help"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help=say("help_model"), show_default=False)]
Calibrate = Annotated[
    str, typer.Option("--calibrate", metavar="builtin|generated|FILE|hf://datasets/…", help=say("help_calibrate"))
]
AsJson = Annotated[bool, typer.Option("--json", help=say("help_json"))]

Chosen = dict[str, Any]
"""What was said of a choice, by the names of its fields: ``Choice.of(**chosen)`` reads it."""
Command = Callable[..., None]
IGNORE = Parameter(
    "ignore",
    Parameter.POSITIONAL_OR_KEYWORD,
    default=None,
    annotation=Annotated[list[str] | None, typer.Option("--ignore", help=say("help_ignore"), show_default=False)],
)
"""``--ignore X`` is short for ``--pin X=none``."""


def with_choice(*without: str) -> Callable[[Command], Command]:
    """Return what gives a command one option for each field of a choice but those named ``without``.

    The command takes them as one parameter called ``chosen``, in whose place they stand in its help.
    """
    offered = [parameter for name in OPTIONS if name not in without for parameter in _parameters(name)]

    def dress(command: Command) -> Command:
        own = signature(command)

        @functools.wraps(command)
        def run(*, context: typer.Context, **values: Any) -> None:
            rest = {name: value for name, value in values.items() if name in own.parameters}
            command(**rest, chosen=chosen({name: value for name, value in values.items() if _is_said(context, name)}))

        places = ((offered if name == "chosen" else [each]) for name, each in own.parameters.items())
        parameters = [each for place in places for each in place]
        parameters.append(Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context))
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
        return run

    return dress


def chosen(values: Mapping[str, Any]) -> Chosen:
    """Return what the values of a command's options say of a choice; of what was left open, nothing."""
    said = {name: value for name, value in values.items() if name in OPTIONS and value is not None}
    kept = [f"{pattern}=none" for pattern in values.get(IGNORE.name) or ()]
    pins = [*said.get("pins", ()), *kept]
    return said | ({"pins": pins} if pins else {})


def _is_said(context: typer.Context, name: str) -> bool:
    """Return whether an option was given: one that was not, and has a default, is nobody's choice."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _parameters(name: str) -> list[Parameter]:
    """Return the parameter for a field's option, with whatever is short for it."""
    option = OPTIONS[name]
    is_open = option.is_repeated or option.unsaid is not None
    kind: Any = list[str] if option.is_repeated else type(option.default_word)
    parameter = Parameter(
        name,
        Parameter.POSITIONAL_OR_KEYWORD,
        default=None if is_open else option.default_word,
        annotation=Annotated[kind | None if is_open else kind, _shown(option, not is_open)],
    )
    return [parameter, IGNORE] if name == "pins" else [parameter]


def _shown(option: Option, show_default: bool) -> Any:
    words = say(f"help_{option.key}", words=", ".join(option.among), calibrated=_calibrated())
    flags = [f"{flag}/--no-{flag.removeprefix('--')}" if option.can_be_denied else flag for flag in option.flags]
    return typer.Option(*flags, help=words, show_default=show_default)


def _calibrated() -> str:
    """Return the methods for which the model reads a text first, as they are registered."""
    return ", ".join(word for word in OPTIONS["method"].among if parse_method(word).needs_inputs)
