"""One command of the terminal, in a process that was forked when everything had been imported: so many seconds, so much
memory. Knows no case.

Forked, for importing takes longer than what is looked at; whoever forks must have computed nothing, for threads of
libraries do not follow into a child.
"""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from psutil import Process

GB = 1 << 30
OPEN = 20
"""Times the seconds that a command may compute, until it counts as one that hangs: other programs compute as well."""


@dataclass(frozen=True)
class Outcome:
    """What became of a child."""

    status: int
    """Its exit code, negative for the signal that ended it."""
    seconds: float
    """Of the processor, its own children's included."""
    passed: float
    """Of the clock."""
    nbytes: int
    """Resident memory at its largest, of the largest process where it had children."""
    out: str
    error: str
    hung: bool


def ended(work: Callable[[], object], folder: Path, seconds: float, environment: Mapping[str, str]) -> Outcome:
    """Fork, work, and say what became of it. The child's address space may grow by a gigabyte."""
    files = [folder / "stdout", folder / "stderr"]
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _work(work, files, environment, seconds)
    hung, status, usage = False, 0, resource.getrusage(resource.RUSAGE_SELF)
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() - began > OPEN * seconds:
            hung = True
            for each in (*Process(child).children(recursive=True), Process(child)):
                each.kill()
            _, status, usage = os.wait4(child, 0)
            break
        time.sleep(0.02)
    spent, code = usage.ru_utime + usage.ru_stime, os.waitstatus_to_exitcode(status)
    out, error = (file.read_text(errors="replace") for file in files)
    return Outcome(code, spent, time.monotonic() - began, usage.ru_maxrss * 1024, out, error, hung)


def _work(work: Callable[[], object], files: Sequence[Path], environment: Mapping[str, str], seconds: float) -> None:
    """Be the child; never returns."""
    code = 99
    try:
        os.setsid()
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(environment)
        room = Process().memory_info().vms + GB
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        work()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def command(words: Sequence[str]) -> Callable[[], object]:
    """Return what runs the terminal's command."""

    def run() -> None:
        from studio.cli.commands import main

        sys.argv = ["studio", *words]
        main()

    return run
