"""Pickled messages over a socket. Knows nothing of what they say.

What a worker keeps for the server goes by number: a :class:`Handle` on the server's side is the object itself on the
worker's. Both sides are this program; nothing of a stranger's is ever unpickled.
"""

import io
import pickle
import select
import socket
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

PROTOCOL = pickle.HIGHEST_PROTOCOL


class Gone(Exception):  # noqa: N818 - an outcome
    """The other side is there no more."""


class Channel:
    """One end: messages go as they are, but for objects that ``name_of`` gives a number."""

    def __init__(
        self,
        place: socket.socket,
        name_of: Callable[[Any], int | None] = lambda _: None,
        objects: Mapping[int, Any] | None = None,
    ) -> None:
        self._connection = Connection(place.detach())
        self._poll = select.poll()  # the connection's own makes a selector each time, which every token would pay for
        self._poll.register(self._connection.fileno(), select.POLLIN)
        self._name_of = name_of
        self._objects: Mapping[int, Any] = {} if objects is None else objects

    def send(self, message: Any) -> None:
        """Send what can be pickled. Raises Gone, and what pickling raises."""
        written = io.BytesIO()
        pickler = pickle.Pickler(written, PROTOCOL)
        pickler.persistent_id = self._name_of  # type: ignore[method-assign]
        pickler.dump(message)
        try:
            self._connection.send_bytes(written.getbuffer())
        except OSError as error:
            raise Gone from error

    def receive(self) -> Any:
        """Return the next message. Raises Gone."""
        try:
            message = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise Gone from error
        reader = pickle.Unpickler(io.BytesIO(message))
        reader.persistent_load = self._objects.__getitem__  # type: ignore[method-assign]
        return reader.load()

    def is_ready(self, seconds: float) -> bool:
        """Return whether a message, or the end, comes within so many seconds."""
        try:
            return bool(self._poll.poll(1e3 * seconds))
        except OSError:  # receiving says what it is
            return True

    def close(self) -> None:
        self._connection.close()
