"""Ctrl-C before a command takes it is one line and exit code 130."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # however this test was started
sys.path[:0] = [{root!r}, {here!r}]
sys.modules["__main__"].__file__ = {program!r}
from studio.base import interrupts
interrupts.leave_quietly()
from pathlib import Path
with interrupts.interruptible(), interrupts.removed_on_leaving(Path({here!r}) / "partial"):
    try:
        {body}
    except KeyboardInterrupt:
        print("taken")
"""
PRESS = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


def pressed(tmp_path: Path, body: str, program: str = "studio/__main__.py") -> subprocess.CompletedProcess[str]:
    """Return how a program ends that presses Ctrl-C itself, a module of which it can import."""
    (tmp_path / "pressing.py").write_text(PRESS)
    (tmp_path / "partial").mkdir()
    code = PROGRAM.format(root=str(ROOT), here=str(tmp_path), program=program, body=body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("program", ["studio/__main__.py", "app.py", "bin/quantization-studio"])
def test_within_an_import_it_is_one_line(tmp_path: Path, program: str) -> None:
    ended = pressed(tmp_path, "import pressing", program)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "partial").exists()


def test_within_a_command_it_is_the_commands_to_take(tmp_path: Path) -> None:
    ended = pressed(tmp_path, PRESS)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "taken\n", "")


def test_in_a_program_that_uses_the_studio_it_is_left_alone(tmp_path: Path) -> None:
    assert pressed(tmp_path, "import pressing", "other.py").stdout == "taken\n"


def test_a_signal_that_is_ignored_stays_so() -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.modules['__main__'].__file__ = 'app.py';"
        "from studio.base import interrupts; interrupts.leave_quietly(); print(signal.getsignal(signal.SIGINT).name)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ended.stdout == f"{signal.SIG_IGN.name}\n"
