"""Work that is done step by step: a generator that yields where it stands and returns what came of it."""

from collections.abc import Callable, Generator
from typing import TypeVar

Step = TypeVar("Step")
Said = TypeVar("Said")
Result = TypeVar("Result")


def relayed(steps: Generator[Step, None, Result], say: Callable[[Step], Said]) -> Generator[Said, None, Result]:
    """Yield what ``say`` makes of each step, and return what the steps return; closing this closes them."""
    try:
        while True:
            yield say(next(steps))
    except StopIteration as finished:
        result: Result = finished.value
        return result
    finally:
        steps.close()
