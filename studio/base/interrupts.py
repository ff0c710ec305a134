"""Ctrl-C while there is nobody yet to take it: during imports, before a command begins and after it ended.

An exception raised within an import is swallowed, wrapped or printed with a traceback by whatever library is being
imported. So a program of ours says its sentence and leaves at once. Knows nothing of commands.
"""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

INTERRUPTED = 130
IMPORTING = "<frozen importlib"

_folders: list[Path] = []
_commands = 0


def leave_quietly() -> None:
    """Take Ctrl-C from here on, if the program that runs is the studio's own and nobody chose to ignore it."""
    program = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    is_module = program.name == "__main__.py" and program.parent.name == "studio"
    is_ours = is_module or program.name in ("app.py", "quantization-studio")
    if is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


@contextmanager
def interruptible() -> Iterator[None]:
    """While it is entered, Ctrl-C raises KeyboardInterrupt, but within an import: somebody is there to take it."""
    global _commands
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1


@contextmanager
def removed_on_leaving(folder: Path) -> Iterator[None]:
    """While it is entered, ``folder`` is removed if the program leaves at once."""
    _folders.append(folder)
    try:
        yield
    finally:
        _folders.remove(folder)


def _interrupted(_number: int, frame: FrameType | None) -> None:
    if _commands and not _is_importing(frame):
        raise KeyboardInterrupt
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)
    erased = "\r\x1b[K" if os.isatty(2) else ""  # a line that said how the program starts
    os.write(2, f"{erased}{_sentence()}\n".encode())
    os._exit(INTERRUPTED)  # no handler, no destructor and no thread says anything more


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            return True
        frame = frame.f_back
    return False


def _sentence() -> str:
    try:
        from studio.base.text import preferred, text

        locale = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(name))), "")
        return text("terminal.stopped", preferred(locale.partition(".")[0].replace("_", "-")))
    except Exception:  # the catalogue itself may be half imported
        return "Stopped."
