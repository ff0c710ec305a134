"""Jobs run to their end. Knows nothing of the studio, so that it can be imported before the settings are made."""

from collections.abc import Generator
from typing import Any, TypeVar

Result = TypeVar("Result")
Said = TypeVar("Said")


def heard(steps: Generator[Said, None, Result]) -> tuple[list[Said], Result]:
    """Run a job to its end and return all that it said, and what came of it."""
    said = []
    while True:
        try:
            said.append(next(steps))
        except StopIteration as finished:
            return said, finished.value


def finish(steps: Generator[Any, None, Result]) -> Result:
    """Run a job to its end and return what came of it."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: Result = finished.value
            return result
