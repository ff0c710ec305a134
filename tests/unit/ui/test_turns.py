"""Events of one visitor: the one that came first is answered first, however long it takes."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.session.session import Session
from studio.ui.turns import in_turn


class Handlers:
    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()
        self.done: list[str] = []

    @in_turn
    def slow(self, session: Session) -> Iterator[dict[Any, Any]]:
        self.began.set()
        assert self.may_end.wait(60)
        self.done.append("slow")
        yield {}

    @in_turn
    def quick(self, session: Session) -> dict[Any, Any]:
        self.done.append("quick")
        return {}


def test_a_later_event_waits_for_the_one_before_it(tmp_path: Path) -> None:
    session, handlers = Session(workspace=tmp_path), Handlers()
    first = threading.Thread(target=lambda: list(handlers.slow(session)))
    first.start()
    assert handlers.began.wait(60)
    second = threading.Thread(target=lambda: list(handlers.quick(session)))
    second.start()
    second.join(0.05)
    handlers.may_end.set()
    first.join(60)
    second.join(60)
    assert handlers.done == ["slow", "quick"]
