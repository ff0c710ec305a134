"""The calls of the page that wait in Gradio's queue or run, as the door counts them. Knows nothing of what they do."""

from collections import Counter
from collections.abc import Mapping

import gradio as gr


class QueuedCalls:
    """Those of one page."""

    def __init__(self, blocks: gr.Blocks) -> None:
        self._blocks = blocks

    def count(self) -> int:
        """Return how many there are."""
        return len(self._blocks._queue.event_ids_to_events)

    def in_flight(self) -> Mapping[str, int]:
        """Return how many each session has."""
        return Counter(event.session_hash for event in list(self._blocks._queue.event_ids_to_events.values()))

    def knows(self, function: object) -> bool:
        """Return whether a number, or a name, is that of a function of the page."""
        if isinstance(function, str):
            return any(each.api_name == function for each in self._blocks.fns.values())
        return isinstance(function, int) and not isinstance(function, bool) and function in self._blocks.fns

    def session_of(self, call: str) -> str | None:
        """Return whose a call is, also of one that has ended and was not heard; None for one that never was."""
        queue = self._blocks._queue
        event = queue.event_ids_to_events.get(call)
        if event is not None:
            return event.session_hash
        return next((name for name, calls in list(queue.pending_event_ids_session.items()) if call in calls), None)
