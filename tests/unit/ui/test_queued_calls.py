"""The calls of the page in Gradio's queue."""

from types import SimpleNamespace
from typing import Any

from studio.ui.queued_calls import QueuedCalls


def test_calls_are_counted_and_found_until_they_were_heard() -> None:
    events = {"a": SimpleNamespace(session_hash="one"), "b": SimpleNamespace(session_hash="one")}
    queue = SimpleNamespace(event_ids_to_events=events, pending_event_ids_session={"one": {"a", "b"}, "two": {"c"}})
    blocks: Any = SimpleNamespace(_queue=queue)
    calls = QueuedCalls(blocks)
    assert calls.count() == 2
    assert calls.in_flight() == {"one": 2}
    assert [calls.session_of(call) for call in ("a", "c", "d")] == ["one", "two", None]


def test_a_function_is_known_by_its_number_alone() -> None:
    blocks: Any = SimpleNamespace(fns={number: SimpleNamespace(api_name=f"f{number}") for number in (0, 1, 7)})
    known = QueuedCalls(blocks).knows
    assert all(map(known, (0, 1, 7, "f0", "f7")))
    assert not any(map(known, (2, -1, True, 1.0, "1", None, [], {}, 1 << 70)))
