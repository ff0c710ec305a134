"""The studio from a terminal: ``python -m studio estimate builtin``. Decides nothing that the page would decide.

torch and all that needs it is imported inside the commands, so that help is there at once.
"""

from studio.base import interrupts

interrupts.leave_quietly()  # before the imports below, which take their time

import os
import signal
import sys
import warnings
from contextlib import suppress

# Each adds its commands, in the order of the help.
from studio.cli import serve, plans, evaluate, front, inspect, chat, targets, export, push, apply, verify, cache  # isort: skip
from studio.cli.options import app

__all__ = ["app", "main"]

COMMANDS = (serve, plans, evaluate, front, inspect, chat, targets, export, push, apply, verify, cache)


def main() -> None:
    """Run a command with nothing on the screen but what the studio says."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    _keep_stdout()
    # SIGTERM as an exception, so that what is half written is removed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app()


def _keep_stdout() -> None:
    """Keep stdout for the answer: what libraries in C write there, as the solver of budgets may, goes to stderr."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    with suppress(OSError, AttributeError):  # one of them may be closed
        shared = sys.stdout.fileno()
        own = os.dup(shared)
        os.dup2(sys.stderr.fileno(), shared)
        sys.stdout = os.fdopen(own, "w", 1 if sys.stdout.isatty() else -1, sys.stdout.encoding, "replace")
