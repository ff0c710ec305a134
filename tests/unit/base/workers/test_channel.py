"""Messages between processes: what is kept on the other side goes by number, and an end is an outcome of its own."""

import socket
from collections.abc import Iterator

import pytest

from studio.base.workers.channel import Channel, Gone


class Kept:
    """Something that stays where it is."""


KEPT = Kept()


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """One that gives ``KEPT`` the number 7, and one that has it under that number."""
    ours, theirs = socket.socketpair()
    pair = Channel(ours, lambda each: 7 if each is KEPT else None), Channel(theirs, objects={7: "theirs"})
    yield pair
    for end in pair:
        end.close()


def test_messages_come_as_they_were_sent_in_their_order(ends: tuple[Channel, Channel]) -> None:
    for message in (None, {"a": [1, 2.5]}, "x" * 50_000):
        ends[0].send(message)
    assert [ends[1].receive() for _ in range(3)] == [None, {"a": [1, 2.5]}, "x" * 50_000]


def test_what_has_a_number_is_the_other_sides_own(ends: tuple[Channel, Channel]) -> None:
    ends[0].send(["before", KEPT])
    assert ends[1].receive() == ["before", "theirs"]


def test_waiting_says_whether_something_came(ends: tuple[Channel, Channel]) -> None:
    assert not ends[1].is_ready(0)
    ends[0].send(1)
    assert ends[1].is_ready(60)


def test_an_end_that_is_closed_is_gone(ends: tuple[Channel, Channel]) -> None:
    ends[0].close()
    assert ends[1].is_ready(60)  # of the end there is something to be heard
    with pytest.raises(Gone):
        ends[1].receive()
    with pytest.raises(Gone):
        ends[1].send("nobody listens")


def test_what_cannot_be_pickled_is_an_error_and_nothing_is_sent(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(Exception, match="pickle"):
        ends[0].send(lambda: None)
    assert not ends[1].is_ready(0)
