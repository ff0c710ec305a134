"""A command that imports for seconds says at once that it lives: on a screen, and nowhere else."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest

from studio.cli.terminal import ERASED, Terminal, say

SLOW = {
    "chat": ["chat", "nowhere", "--prompt", "Hello"],
    "evaluate": ["evaluate", "nowhere", "--against", "nowhere"],
    "compress": ["compress", "nowhere", "--out", "there"],
}


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "speak",
    [
        lambda here: here.note("A note."),
        lambda here: here.stream("A word"),
        lambda here: here.answer({}, "An answer."),
        lambda here: here.fail("key", "A failure.", 2),
    ],
    ids=["note", "stream", "answer", "fail"],
)
def test_what_is_said_first_takes_its_place(
    speak: Callable[[Terminal], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    here = Terminal(False, io.StringIO())
    here.starting()
    assert screen.getvalue() == say("starting")
    speak(here)
    speak(here)
    assert screen.getvalue().startswith(say("starting") + ERASED)
    assert screen.getvalue().count(ERASED) == 1


def test_nothing_is_said_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    here = Terminal(False, io.StringIO())
    here.starting()
    here.started()
    assert log.getvalue() == ""


@pytest.mark.parametrize("command", SLOW.values(), ids=SLOW)
def test_a_slow_command_says_so_before_it_imports(command: list[str]) -> None:
    """The line comes while neither torch nor transformers is there: the import that comes next fails here."""
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; sys.argv = ['studio', *sys.argv[1:]];"
        "from studio.cli.commands import main; main()"
    )
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, stderr=theirs, check=False
        )
        said = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 1
    assert said.startswith(say("starting") + ERASED)
