"""Figures kept on disk from one visit to the next: JSON with a checksum, written by one rename. Knows no figure."""

import hashlib
import json
import logging
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

LOG = logging.getLogger(__name__)


def keep(file: Path, figures: object) -> None:
    """Write figures for the next visit; a disk that has no room for them costs that visit a second, no more."""
    partial = file.with_suffix(f".{os.getpid()}-{uuid.uuid4().hex}")  # of this thread alone
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"digest": digest(figures), "figures": figures}))
        partial.replace(file)
    except OSError as error:
        LOG.warning("%s is not kept: %s", file, error)
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def recall(file: Path) -> Any:
    """Return the figures of an earlier visit, None where there are none or not all of them, as they were written.

    The checksum finds what was cut short or changed by hand; whether figures can be what they say is the caller's.
    """
    try:
        content = json.loads(file.read_bytes())
        figures = content["figures"]
        return figures if content["digest"] == digest(figures) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def digest(figures: object) -> str:
    """Return a checksum that other figures do not have."""
    return hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()
