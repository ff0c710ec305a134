"""What can go wrong, as a tree; the family ``UserError`` means "show this sentence to the user".

    StudioError
    ├── Cancelled              the user asked to stop; nothing went wrong
    └── UserError              one sentence: what happened, what to do
        ├── ModelError         the model's name, repository or architecture
        ├── HubError           the Hub did not answer, or answered no
        ├── CheckpointError    a file is missing, cut short or not what it claims to be
        ├── SchemeError        a mode, group size, ratio or backup that cannot be
        ├── PromptError        nothing to answer, or too much of it
        ├── TextError          a text to read that is none, or too short
        ├── ProcessError       a process of our own that computed this has ended
        └── ResourceError      memory or disk that this machine does not have

An error carries a key of the text catalogue and the values for its places, so that readers get it in their language.
"""

import errno
from pathlib import Path

from studio.text import DEFAULT, text

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or a limit on a file's size is reached."""


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
        return text(f"error.{self.key}", language, **self.values)

    def __str__(self) -> str:
        return self.sentence()


class ModelError(UserError):
    """The model's name, repository or architecture is not one the studio can work with."""


class HubError(UserError):
    """The Hub did not answer, or answered no."""


class CheckpointError(UserError):
    """A file of the model is missing, cut short or not what it claims to be."""


class SchemeError(UserError):
    """A mode, group size, ratio or backup mode that cannot be."""


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
