"""What can go wrong, as a tree; the family ``UserError`` means "show this sentence to the user".

    StudioError
    ├── Cancelled              the user asked to stop; nothing went wrong
    └── UserError              one sentence: what happened, what to do
        ├── ModelError         the model's name, repository or architecture
        ├── HubError           the Hub did not answer, or answered no
        ├── CheckpointError    a file is missing, cut short or not what it claims to be
        ├── SchemeError        a choice that cannot be: a word that names none, or one that does not go with the rest
        ├── PromptError        nothing to answer, or too much of it
        ├── TextError          a text to read that is none, or too short
        ├── ProcessError       a process of our own that computed this has ended
        └── ResourceError      memory or disk that this machine does not have

An error carries a key of the text catalogue and the values for its places, so that readers get it in their language.
What a sentence shows of a file is escaped and cut: whoever wrote the file writes nothing on the reader's screen. Knows
no model and no screen.
"""

import errno
from collections.abc import Iterator
from pathlib import Path

from studio.base.text import DEFAULT, text

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or a limit on a file's size is reached."""
MAX_SHOWN = 400
"""Characters of one value in a sentence; the longest paths that people have are shorter."""
NO_MEMORY = (
    "can't allocate memory", "cannot allocate memory", "failed to map segment", "can't start new thread",
    "without exception set", "without setting an exception", "out of memory", "not enough memory",
)  # fmt: skip
"""How torch, the system's loader, Python, and libraries that forgot to say it at all, tell that memory ended."""


class StudioError(Exception):
    """Anything the studio raises on purpose."""


class Cancelled(StudioError):  # noqa: N818 - an outcome, not an error
    """The user asked for the work to stop."""


class UserError(StudioError):
    """A problem the user can do something about, said in one sentence of their language."""

    def __init__(self, key: str, /, **values: object) -> None:
        super().__init__(key, values)
        self.key = key
        self.values = values

    def __reduce__(self) -> tuple[object, ...]:
        """Let it pass from one process to another."""
        return _rebuilt, (type(self), self.key, self.values)

    def sentence(self, language: str = DEFAULT) -> str:
        """Return what happened and what to do, in ``language``."""
        return text(f"error.{self.key}", language, **{name: _shown(value) for name, value in self.values.items()})

    def __str__(self) -> str:
        return self.sentence()


class ModelError(UserError):
    """The model's name, repository or architecture is not one the studio can work with."""


class HubError(UserError):
    """The Hub did not answer, or answered no."""


class CheckpointError(UserError):
    """A file of the model is missing, cut short or not what it claims to be."""


class SchemeError(UserError):
    """A choice that cannot be: a word that names no mode, method, mix, target or pattern of layers, or one that does
    not go with the rest (a group that divides no row, a scheme that a target has no type for)."""


class PromptError(UserError):
    """Nothing to answer, or too much of it."""


class TextError(UserError):
    """A text for calibration or evaluation that is none, or too short."""


class ProcessError(UserError):
    """A process that computed this has ended, or none could be started; the server and its other visitors go on."""


class ResourceError(UserError):
    """Memory or disk that this machine does not have."""


def _rebuilt(kind: type[UserError], key: str, values: dict[str, object]) -> UserError:
    return kind(key, **values)


def disk_error(error: OSError, place: Path) -> ResourceError:
    """Return the sentence for a failure to write at ``place``."""
    if error.errno in DISK_FULL:
        return ResourceError("export_disk_full", path=str(place.parent))
    return ResourceError("cannot_write", path=str(place), reason=error.strerror or type(error).__name__)


def printable(words: str) -> str:
    """Return ``words`` with everything that is no plain character escaped: what moves a cursor, turns the direction of
    writing, or begins a line."""
    if words.isprintable():
        return words
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in words)


def _shown(value: object) -> object:
    """Return a value as a sentence shows it."""
    if isinstance(value, int | float) and abs(value) < 1 << 64:
        return value
    try:
        words = str(value)
    except ValueError:  # Python writes no number of thousands of digits
        words = hex(value) if isinstance(value, int) else type(value).__name__
    words = printable(words[: MAX_SHOWN + 1])
    return words if len(words) <= MAX_SHOWN else words[:MAX_SHOWN] + "…"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or one that it came from, is that there was no memory left."""
    return any(
        isinstance(each, MemoryError)
        or (isinstance(each, OSError) and each.errno == errno.ENOMEM)
        or (isinstance(each, RuntimeError | ImportError | OSError | SystemError) and _says(each, NO_MEMORY))
        for each in _chain(error)
    )


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    said = str(error).lower()
    return any(each in said for each in words)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it, each once."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if all(each is not other for other in seen):
            seen.append(each)
            yield each
            waiting += [cause for cause in (each.__cause__, each.__context__) if cause is not None]
