"""A page's streams count as long as they are open, and its question is answered by how its visit stands."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio.session.attendance import Attendance
from studio.session.session import Session
from studio.session.shared import Shared
from studio.ui.presence import Presence


@pytest.fixture
def attendance(tmp_path: Path) -> Attendance:
    shared = Shared()
    found = Attendance(shared.pool)
    found.arrive("visit-1", Session(shared, workspace=tmp_path / "workspace"))
    return found


class Inside:
    """The page behind: notes whether the visit counts as connected while it answers."""

    def __init__(self, attendance: Attendance) -> None:
        self._attendance, self.saw = attendance, list[bool]()
        self.state = SimpleNamespace(is_closed=True)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.saw.append("visit-1" in self._attendance._connections)
        if "fail" in scope["path"]:
            raise OSError("the line broke")


def asked(
    attendance: Attendance, path: str, query: str = "", method: str = "GET", is_held: bool = True
) -> tuple[Inside, list[Any]]:
    inside, sent = Inside(attendance), list[Any]()
    states = {"visit-1": inside.state} if is_held else {}
    holder = SimpleNamespace(state_holder=SimpleNamespace(session_data=states))
    scope: Any = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(), "app": holder,
    }  # fmt: skip

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    asyncio.run(Presence(inside, attendance)(scope, receive, send))
    return inside, sent


@pytest.mark.parametrize(
    ("path", "query", "counts"),
    [
        ("/gradio_api/heartbeat/visit-1", "", True),
        ("/gradio_api/queue/data", "session_hash=visit-1", True),
        ("/gradio_api/queue/data", "session_hash=another", False),
        ("/gradio_api/queue/data", "session_hash=" + "x" * 65, False),
        ("/gradio_api/queue/data", "", False),
        ("/gradio_api/heartbeat/", "", False),
        ("/config", "session_hash=visit-1", False),
    ],
)
def test_a_stream_counts_while_it_is_open(attendance: Attendance, path: str, query: str, counts: bool) -> None:
    inside, _ = asked(attendance, path, query)
    assert inside.saw == [counts]
    assert not attendance._connections, "it ended"


def test_gradio_does_not_let_a_session_go_by_itself_once_its_stream_has_ended(attendance: Attendance) -> None:
    inside, _ = asked(attendance, "/gradio_api/heartbeat/visit-1")
    assert inside.state.is_closed is False


def test_a_page_is_told_how_its_visit_stands(attendance: Attendance) -> None:
    _, (start, body) = asked(attendance, "/presence/visit-1")
    assert start["status"] == 200
    assert json.loads(body["body"]) == {"known": True, "connected": False, "gone": False}
    _, (_, body) = asked(attendance, "/presence/visit-1", is_held=False)  # Gradio keeps so many and no more
    assert json.loads(body["body"])["known"] is False
    _, (_, body) = asked(attendance, "/presence/nobody")
    assert json.loads(body["body"]) == {"known": False, "connected": False, "gone": False}
    for path in ("/gradio_api/file=/presence/visit-1", "/x/presence/visit-1"):  # the door looks at neither
        inside, sent = asked(attendance, path)
        assert (len(inside.saw), sent) == (1, [])
    inside, sent = asked(attendance, "/presence/visit-1", method="POST")
    assert (len(inside.saw), sent) == (1, [])
