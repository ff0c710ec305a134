"""How much of the page somebody may have at once, and how often. Knows no request."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from studio.base.limits import Limits
from studio.ui.door.counting import Counting, Held
from studio.ui.door.refusal import Refused
from studio.ui.door.visitors import Visitors, Who

SOON = 5.0
"""Seconds after which to try again what waits for others to end."""
MINUTE, HOUR = 60.0, 3600.0


class Pace:
    """The limits of one server, and where everybody stands."""

    def __init__(self, limits: Limits, visitors: Visitors, in_flight: Callable[[], Mapping[str, int]]) -> None:
        """``in_flight``: how many calls of each session wait or run."""
        self._limits, self._visitors, self._in_flight = limits, visitors, in_flight
        self._connections, self._calls = Held(), Held()
        self._bytes: dict[int, int] = {}
        """That each address is sending at this moment."""
        self._often = Counting(limits.calls_per_minute, MINUTE), Counting(limits.address_calls_per_minute, MINUTE)
        self._tabs = Counting(limits.visitor_tabs, HOUR), Counting(limits.address_tabs, HOUR)
        self._uploads = (
            Counting(limits.visitor_uploads_per_hour, HOUR), Counting(limits.address_uploads_per_hour, HOUR)
        )  # fmt: skip

    @contextmanager
    def connected(self, who: Who) -> Iterator[None]:
        """Hold a connection while a request is answered. Raises Refused."""
        keys = (("visitor", who.visitor.number), ("address", who.visitor.address))
        most = (self._limits.visitor_connections, self._limits.address_connections)
        if any(self._connections.of(key) >= limit for key, limit in zip(keys, most, strict=True)):
            raise Refused(429, "connections", SOON)
        with _taken(self._connections, keys):
            yield

    @contextmanager
    def called(self, who: Who, session: str) -> Iterator[None]:
        """Hold a call from when it comes until it is taken; those that were taken are told by the queue itself.

        Raises Refused where the tab, the visitor or the address has too many in flight, or called too often.
        """
        self._paced(self._often, who, "calls")
        waiting: Counter[tuple[str, object]] = Counter()
        for name, count in self._in_flight().items():
            owner = self._visitors.owner(name)
            waiting["session", name] += count
            if owner is not None:
                waiting["visitor", owner.visitor.number] += count
                waiting["address", owner.visitor.address] += count
        keys = (("session", session), ("visitor", who.visitor.number), ("address", who.visitor.address))
        most = (self._limits.session_calls, self._limits.visitor_calls, self._limits.address_calls)
        if any(waiting[key] + self._calls.of(key) >= limit for key, limit in zip(keys, most, strict=True)):
            raise Refused(429, "in_flight", SOON)
        with _taken(self._calls, keys):
            yield

    @contextmanager
    def sending(self, who: Who) -> Iterator[Callable[[int], None]]:
        """Give what is to be called with the bytes of each piece that comes; all are given back in the end.

        That raises Refused where they are more than an address may be sending.
        """
        key, taken = who.visitor.address, 0

        def came(nbytes: int) -> None:
            nonlocal taken
            taken += nbytes
            self._bytes[key] = self._bytes.get(key, 0) + nbytes
            if self._bytes[key] > self._limits.address_body_bytes:
                raise Refused(429, "connections", SOON)

        try:
            yield came
        finally:
            left = self._bytes.get(key, 0) - taken
            if left > 0:
                self._bytes[key] = left
            else:
                self._bytes.pop(key, None)

    def opened(self, who: Who) -> None:
        """Count a new tab. Raises Refused."""
        self._paced(self._tabs, who, "tabs")

    def uploaded(self, who: Who) -> None:
        """Count an upload. Raises Refused."""
        self._paced(self._uploads, who, "uploads")

    def _paced(self, counted: tuple[Counting, Counting], who: Who, kind: str) -> None:
        """Count once for a visitor and for their address. Raises Refused where either may not, and counts neither."""
        if who.visitor.is_owner:
            return
        of_visitor, of_address = counted
        wait = of_address.wait(who.visitor.address) or of_visitor.count(who.visitor.number)
        if wait:
            raise Refused(429, kind, wait, minutes=math.ceil(wait / MINUTE))
        of_address.count(who.visitor.address)


@contextmanager
def _taken(held: Held, keys: tuple[tuple[str, object], ...]) -> Iterator[None]:
    for key in keys:
        held.take(key)
    try:
        yield
    finally:
        for key in keys:
            held.give(key)
