"""``serve`` and ``prepare``: the page, and the built-in model made ready for it. Knows not what is on it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from studio.base.errors import ResourceError
from studio.base.settings import settings
from studio.cli.options import AsJson, app
from studio.cli.terminal import Terminal, say, terminal

if TYPE_CHECKING:
    from studio.checkpoint.checkpoint import Checkpoint

PAGE = ("gradio", "plotly")
"""What only the page needs; the package has it as an extra."""
PAGE_INSTALL = "pip install 'quantization-studio[page]'"


@app.command(help=say("help_serve"))
def serve(
    host: Annotated[str | None, typer.Option(help=say("help_host"), show_default=False)] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help=say("help_port"), show_default=False)] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help=say("help_metrics_port"), show_default=False)
    ] = None,
) -> None:
    with terminal(as_json=False) as here:
        if metrics_port is not None:
            settings().metrics_port = metrics_port
        if not all(map(find_spec, PAGE)):
            raise ResourceError("page_missing", command=PAGE_INSTALL)
        at, wanted = host or settings().host, settings().port if port is None else port
        with _having(at, wanted):
            _probe(at, wanted)
        from studio.base import workers
        from studio.checkpoint.open_model import builtin_file

        workers.warm_up()  # it imports for seconds on another core
        if builtin_file() is not None:
            _prepare_builtin(here)
        from studio.ui import launch

        with _having(at, wanted), redirect_stdout(here.out):
            launch(host, port)


@contextmanager
def _having(host: str, port: int) -> Iterator[None]:
    """Say in a sentence that a port is not to be had."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # a file's fault, not the port's
            raise
        raise ResourceError("cannot_serve", where=f"{host}:{port}") from error


def _probe(host: str, port: int) -> None:
    """Raise OSError where somebody has the port already: the page, which would find out, takes seconds to build."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was had a moment ago is free
        probe.bind((host.strip("[]"), port))


@app.command(help=say("help_prepare"))
def prepare(as_json: AsJson = False) -> None:
    with terminal(as_json) as here:
        from studio.cli.report import model_facts

        checkpoint = _prepare_builtin(here)
        facts = model_facts(checkpoint) | {"path": str(checkpoint.path)}
        here.answer(facts, say("prepared", path=checkpoint.path))


def _prepare_builtin(here: Terminal) -> "Checkpoint":
    """Convert the built-in model and find out its sensitivities, once; afterwards it is ready at a touch."""
    from studio.checkpoint.open_model import BUILTIN
    from studio.session.session import Session

    session = Session()
    checkpoint = here.follow(session.open(BUILTIN))
    if session.is_unmeasured:  # a process to look it up in would be seconds in coming
        here.follow(session.measurements.survey())
    return checkpoint
