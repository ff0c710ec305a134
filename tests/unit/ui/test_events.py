"""Lanes of the queue: chat waits for nothing that is long, and who is quick for nobody."""

import asyncio
import inspect
from typing import Any

import pytest

from studio.ui.events import CHATS, THREADS, WORKERS, wire
from studio.ui.handlers import Handlers
from studio.ui.page import build

Lanes = dict[str, tuple[str, int | None]]


@pytest.fixture(scope="module")
def lanes() -> Lanes:
    """The lane of every handler by its name, and how many go through it at once."""
    return {
        each.name: (str(each.concurrency_id), each.concurrency_limit)
        for each in asyncio.run(functions())
        if each.fn is not None
    }


async def functions() -> list[Any]:
    blocks, page = build()
    with blocks:
        wire(page, blocks)
    return list(blocks.fns.values())


def test_whoever_tells_steps_is_a_generator() -> None:
    """One that returns another would be shown as that object: Gradio looks at the function, not at what it gives."""
    told = [each.fn for each in asyncio.run(functions()) if "Iterator" in str(annotation(each.fn))]
    assert {"compress", "visit"} <= {each.__name__ for each in told}
    every = [*map(inspect.unwrap, told), Handlers.visit_as]  # the last is wired where visitors can sign in
    assert [each.__name__ for each in every if not inspect.isgeneratorfunction(each)] == []


def annotation(function: Any) -> object:
    return getattr(inspect.unwrap(function), "__annotations__", {}).get("return") if function else None


def test_answers_have_a_lane_of_their_own(lanes: Lanes) -> None:
    assert lanes["talk"] == lanes["regenerate"] == ("chat", CHATS)
    others = {lane for name, (lane, _) in lanes.items() if name not in ("talk", "regenerate")}
    assert "chat" not in others


def test_long_jobs_share_lanes_that_are_wide_enough_to_tell_who_waits_where_they_stand(lanes: Lanes) -> None:
    for name in ("compress", "make", "export", "verify"):
        assert lanes[name] == ("work", WORKERS)
    assert lanes["measure_drift"] == ("drift", WORKERS)


def test_each_of_those_has_a_thread(lanes: Lanes) -> None:
    widths = {lane: limit for lane, limit in lanes.values() if limit is not None}
    assert sum(widths.values()) < THREADS


def test_what_is_quick_waits_for_nothing(lanes: Lanes) -> None:
    for name in ("queue_talk", "queue_compress", "queue_make", "stop", "cancel", "choose", "pick"):
        assert lanes[name][1] is None
