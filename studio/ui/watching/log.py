"""A line of JSON for each job that ended, for whoever looks after a page. Knows not what jobs do."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from studio.ui.watching.jobs import Ended

LOG = logging.getLogger("studio.jobs")
STDERR = "-"
FILE_BYTES = 10_000_000
"""Of a log file, after which a new one is begun."""
OLD_FILES = 2
"""That are kept beside it."""


def line(ended: Ended, at: datetime) -> str:
    """Return what is written of a job."""
    said: dict[str, object] = {
        "time": at.isoformat(timespec="milliseconds"),
        "event": "job",
        "kind": ended.kind,
        "visitor": ended.visitor,
        "seconds": round(ended.seconds, 3),
        "outcome": ended.outcome,
    }
    return json.dumps(said | ({"reason": ended.reason} if ended.reason else {}))


def write(ended: Ended) -> None:
    """Write it where :func:`begin` said."""
    LOG.info("%s", line(ended, datetime.now(UTC)))


class _Private(RotatingFileHandler):
    """Files, the rotated ones too, that their owner alone can read."""

    def _open(self) -> TextIOWrapper:
        opened = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.fchmod(opened, 0o600)  # one that was there before
        return os.fdopen(opened, "a", encoding=self.encoding)


def begin(where: str) -> None:
    """Write to a file that only its owner can read, or to standard error for ``-``. Raises OSError."""
    end()
    handler: logging.Handler
    if where == STDERR:
        handler = logging.StreamHandler(sys.stderr)
    else:
        file = Path(where).expanduser()
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = _Private(file, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def end() -> None:
    """Write nowhere."""
    for handler in tuple(LOG.handlers):
        LOG.removeHandler(handler)
        handler.close()
