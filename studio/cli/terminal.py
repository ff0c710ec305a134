"""How the studio speaks in a terminal: its answer on stdout, all else on stderr. Knows nothing of models.

An answer is one JSON object or a few lines to read. What goes wrong is one sentence in the language of the locale and
an exit code: 2 when the user can do something about it, 1 for a bug, 130 when interrupted.
"""

import errno
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import typer

from studio.base.errors import ResourceError, UserError, is_out_of_memory, printable
from studio.base.interrupts import interruptible
from studio.base.settings import settings
from studio.base.text import DEFAULT, catalogue, preferred, text

if TYPE_CHECKING:  # the session brings torch along, and help must not wait for it
    from studio.base.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

USER_ERROR, BUG, INTERRUPTED = 2, 1, 130

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What moves a cursor or colours a screen; a model may have been trained to write it."""
SURROUNDINGS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
"""What the system refuses because of a disk or a permission, not because of the studio."""
ERASED = "\r\x1b[K"
"""What takes a line of a screen back."""


def language() -> str:
    """Return the language of the locale, read as POSIX does: ``zh_TW.UTF-8`` is ``zh-Hant``."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    locale = next((value for name in names if (value := os.environ.get(name))), "")
    wished = preferred(locale.partition(".")[0].replace("_", "-"))
    try:
        catalogue(wished)
    except FileNotFoundError:  # not translated yet
        return DEFAULT
    return wished


def say(key: str, /, **values: object) -> str:
    """Return the terminal's sentence ``key``."""
    return text(f"terminal.{key}", language(), **values)


class Terminal:
    """What a command speaks through."""

    def __init__(self, as_json: bool, out: TextIO) -> None:
        self.as_json = as_json
        self.out = out
        """Where the answer goes, and nothing else."""
        self.interrupted = "stopped"
        """The key of what is said when the user interrupts: a command may know more of what comes of it."""
        self.interrupted_values: dict[str, str] = {}
        """What is filled in there."""
        self._is_starting = False

    def starting(self) -> None:
        """Show that the command lives while what it needs is imported: on a screen, until there is something to say."""
        if sys.stderr.isatty():
            print(say("starting"), end="", file=sys.stderr, flush=True)
            self._is_starting = True

    def started(self) -> None:
        """Take that back."""
        if self._is_starting:
            print(ERASED, end="", file=sys.stderr, flush=True)
            self._is_starting = False

    def follow(self, steps: "Generator[Progress, None, Result]") -> Result:
        """Show a job's progress and return its result."""
        self.started()
        with closing(steps), _progress() as show:
            while True:
                try:
                    show(next(steps))
                except StopIteration as finished:
                    result: Result = finished.value
                    return result

    def note(self, sentence: str) -> None:
        """Say something beside the answer."""
        self.started()
        print("\n".join(map(printable, sentence.split("\n"))), file=sys.stderr)

    def stream(self, words: str) -> None:
        """Write a piece of the answer as it comes; JSON is written whole, by :meth:`answer`."""
        self.started()
        if not self.as_json:
            shown = CONTROL.sub("\N{REPLACEMENT CHARACTER}", words) if self.out.isatty() else words
            print(shown, end="", file=self.out, flush=True)

    def answer(self, facts: dict[str, Any], heading: str = "", rows: Sequence[tuple[str, str]] = ()) -> None:
        """Write the answer: the facts as JSON, or the heading and the rows below it."""
        self.started()
        if self.as_json:
            print(json.dumps(facts), file=self.out, flush=True)
            return
        print(printable(heading), file=self.out)
        if rows:
            _print_table([(printable(name), printable(value)) for name, value in rows], self.out)

    def fail(self, key: str, sentence: str, code: int) -> typer.Exit:
        """Say what went wrong; return the exception that ends the command."""
        self.note(sentence)
        if self.as_json:
            print(json.dumps({"error": {"key": key, "message": sentence}}), file=self.out, flush=True)
        return typer.Exit(code)


@contextmanager
def terminal(as_json: bool) -> Iterator[Terminal]:
    """Lend a command its terminal, and turn what it raises into a sentence and an exit code."""
    here = Terminal(as_json, sys.stdout)
    try:
        with interruptible(), redirect_stdout(sys.stderr):  # what libraries print must not mix with the answer
            _check_settings()
            yield here
    except KeyboardInterrupt as interrupt:
        raise here.fail("interrupted", say(here.interrupted, **here.interrupted_values), INTERRUPTED) from interrupt
    except (BrokenPipeError, typer.Exit):  # the reader went away; typer knows what to do
        raise
    except Exception as error:
        raise here.fail(*_explained(error)) from error


def _check_settings() -> None:
    """Raise UserError for an environment variable that cannot be used."""
    from pydantic import ValidationError

    try:
        settings()
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError("bad_setting", name=fault["loc"][0], reason=fault["msg"]) from error


def _explained(error: Exception) -> tuple[str, str, int]:
    """Return the key, the sentence and the exit code of what went wrong; a bug's traceback is kept in a file."""
    if is_out_of_memory(error) and not isinstance(error, UserError):
        error = ResourceError("out_of_memory")
    if isinstance(error, OSError) and error.errno in SURROUNDINGS:
        error = UserError("cannot_use", path=error.filename or settings().cache_dir, reason=error.strerror)
    if isinstance(error, UserError):
        return error.key, error.sentence(language()), USER_ERROR
    return "unexpected", say("bug", error=type(error).__name__, log=_log(error)), BUG


def _log(error: Exception) -> Path:
    """Keep the traceback for whoever reports the bug, and return where."""
    name = f"studio-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    report = "".join(traceback.format_exception(error))
    try:
        file = settings().cache_dir / "logs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report, encoding="utf-8")
    except OSError:
        file = Path(tempfile.gettempdir()) / name
        file.write_text(report, encoding="utf-8")
    return file


def _print_table(rows: Sequence[tuple[str, str]], out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(name, value)
    Console(file=out, markup=False, highlight=False, emoji=False, width=500).print(table)


@contextmanager
def _progress() -> "Iterator[Callable[[Progress], None]]":
    """Lend a function that shows where a job stands: a bar on a screen, a few lines in a log."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar)


class _Lines:
    """A line for each stage, and for each quarter of one that takes its time."""

    def __init__(self) -> None:
        self._stage, self._quarter, self._said = "", 0, 0.0

    def __call__(self, event: "Progress") -> None:
        quarter = int(4 * (event.fraction or 0))
        is_new = event.stage != self._stage
        if is_new or (quarter != self._quarter and time.monotonic() - self._said > 2):
            share = f" {25 * quarter} %" if quarter else ""
            print(text(f"stage.{event.stage}", language()) + share, file=sys.stderr, flush=True)
            self._stage, self._quarter, self._said = event.stage, quarter, time.monotonic()


class _Bar:
    """One bar at a time, a new one for each stage."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task: Any = None
        self._stage = ""

    def __call__(self, event: "Progress") -> None:
        if event.stage != self._stage:
            if self._task is not None:
                self._bar.remove_task(self._task)
            total = None if event.fraction is None else 1.0
            self._task = self._bar.add_task(text(f"stage.{event.stage}", language()), total=total, detail="")
            self._stage = event.stage
        self._bar.update(self._task, completed=event.fraction, detail=event.detail)
