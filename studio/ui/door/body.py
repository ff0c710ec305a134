"""What a request brings, read before anything acts on it: as long as it may be, as soon as it should be.

Knows not what it is for.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class TooLong(Exception):  # noqa: N818 - said of a body
    """It is longer than it may be; what was not read yet is not read."""


class TooSlow(Exception):  # noqa: N818
    """It was not here in time."""


class Gone(Exception):  # noqa: N818
    """Whoever sent it has left."""


async def read(receive: Receive, most: int, seconds: float, came: Callable[[int], None] = lambda _: None) -> bytes:
    """Return a body of at most ``most`` bytes that is here within ``seconds``. Raises TooLong, TooSlow or Gone.

    ``came`` is told the bytes of each piece, and may raise what it likes.
    """
    pieces: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Gone
                pieces.append(message.get("body", b""))
                length += len(pieces[-1])
                if length > most:
                    raise TooLong
                came(len(pieces[-1]))
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError as error:
        raise TooSlow from error


def again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read once more, and then whatever comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message
