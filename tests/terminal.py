"""``python -m studio`` for the tests: a command called in this process, or started in one of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from studio.checkpoint.headers import read_header
from studio.cli.commands import app
from tests.conftest import ROOT

TinyModel = Callable[[str], Path]


QUESTION = "What is the capital of France?"


PATIENCE = 600
"""Seconds that a process has; one that hangs is to be told from one on a busy machine."""


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one object on stdout: anything else there fails here."""
        return json.loads(self.stdout)


def run(*arguments: object) -> Answer:
    """Call a command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def start(*arguments: object, before: str = "", **environment: str) -> "subprocess.Popen[str]":
    """Start a command in a process of its own, which runs the Python of ``before`` first.

    Ctrl-C interrupts it however the tests were started: in the background of a script (``nohup … &``) it would not, for
    a signal that is ignored stays so in every child.
    """
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"import runpy, sys\n{heed}\n{before}\nrunpy.run_module('studio', run_name='__main__', alter_sys=True)"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_process(*arguments: object, before: str = "", **environment: str) -> Answer:
    process = start(*arguments, before=before, **environment)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return Answer(process.returncode, stdout, stderr)


def assert_refused(answer: Answer, key: str) -> None:
    """Check for exit code 2 and one sentence: the last line for a reader, an object for a program."""
    assert answer.code == 2, answer
    assert "Traceback" not in answer.stdout + answer.stderr
    error = answer.json["error"]
    assert error["key"] == key
    assert answer.stderr.splitlines()[-1] == error["message"]
    assert "{" not in error["message"]


def names(folder: Path) -> set[str]:
    """Return everything below a folder, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def tensor_bytes(file: Path) -> int:
    return sum(entry.nbytes for entry in read_header(file).values())
