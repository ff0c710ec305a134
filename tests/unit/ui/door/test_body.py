"""What a request brings, read before anything acts on it."""

import asyncio
from collections.abc import Iterator

import pytest

from studio.ui.door import body
from studio.ui.door.body import Message


def sent(*pieces: bytes, is_whole: bool = True) -> tuple[body.Receive, Iterator[Message]]:
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if is_whole:
        messages[-1]["more_body"] = False
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting, {"type": "http.disconnect"})

    return receive, waiting


def test_a_body_comes_in_pieces_and_can_be_read_again() -> None:
    receive, _ = sent(b"a", b"bc")
    assert asyncio.run(body.read(receive, 3, 60)) == b"abc"
    once_more = body.again(b"abc", receive)
    assert asyncio.run(body.read(once_more, 3, 60)) == b"abc"
    with pytest.raises(body.Gone):
        asyncio.run(body.read(once_more, 3, 60))


def test_what_is_too_long_is_not_read_to_its_end() -> None:
    receive, waiting = sent(*[b"abcd"] * 1000)
    with pytest.raises(body.TooLong):
        asyncio.run(body.read(receive, 9, 60))
    assert len(list(waiting)) == 997


def test_who_leaves_meanwhile_is_gone() -> None:
    receive, _ = sent(b"a", is_whole=False)
    with pytest.raises(body.Gone):
        asyncio.run(body.read(receive, 9, 60))


def test_what_does_not_come_is_not_waited_for() -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        return {}

    with pytest.raises(body.TooSlow):
        asyncio.run(body.read(never, 9, 0.01))
