"""What the built-in model lost in plans that were carried out before it was shipped: real measurements, in a file.

``python -m tests.reference_points`` makes the file; a test compares its bytes with those of the plans. Knows no pages.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from studio.base.assets import asset
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.open_model import BUILTIN
from studio.planning.choice import Choice

FILE = "reference.json"


@dataclass(frozen=True)
class ReferencePoint:
    """One plan of the built-in model, carried out and measured on the built-in texts."""

    choice: Choice
    nbytes: int
    """Of the weights in ``target``."""
    target: str
    kld: float
    """Nats a token."""
    standard_error: float
    same_top: float
    tokens: int

    @classmethod
    def of(cls, line: dict[str, Any]) -> "ReferencePoint":
        return cls(Choice.of(**line.pop("choice")), **line)


@cache
def reference_points() -> tuple[ReferencePoint, ...]:
    """Return all that are shipped."""
    lines = json.loads(asset(FILE).read_text(encoding="utf-8"))["points"]
    return tuple(ReferencePoint.of(line) for line in lines)


def points_of(checkpoint: Checkpoint | None) -> tuple[ReferencePoint, ...]:
    """Return those of a model: there are some of the built-in one alone."""
    return reference_points() if checkpoint is not None and checkpoint.name == BUILTIN else ()
