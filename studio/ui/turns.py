"""A visitor's events answered in their order. Knows no handler and no page."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from studio.session.session import Session
from studio.ui.updates import Updates


def in_turn(handler: Callable[..., Updates | Iterable[Updates]]) -> Callable[..., Iterator[Updates]]:
    """Let one event of a visitor be answered after the other: an answer that comes later must not know less.

    For what is quick alone, whose answers are found before the first is given: events run in threads of their own.
    """

    @functools.wraps(handler)
    def answer(self: Any, session: Session, *inputs: Any) -> Iterator[Updates]:
        with session.decision.turn:
            found = handler(self, session, *inputs)
            shown = [found] if isinstance(found, dict) else list(found)
        yield from shown

    return answer
