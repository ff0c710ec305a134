"""The jobs of visitors as they end."""

from collections.abc import Iterator

import pytest

from studio.base.errors import Cancelled, PromptError
from studio.session.session import Session
from studio.session.visitor import Visitor
from studio.ui.chat_handlers import ChatHandlers
from studio.ui.decision_handlers import DecisionHandlers
from studio.ui.drift_handlers import DriftHandlers
from studio.ui.handlers import Handlers
from studio.ui.push_handlers import PushHandlers
from studio.ui.watching import jobs
from studio.ui.watching.jobs import KINDS, Ended, watched


@pytest.fixture
def ended() -> Iterator[list[Ended]]:
    found: list[Ended] = []
    stop = jobs.listen(found.append)
    yield found
    stop()


@pytest.fixture
def session() -> Session:
    return Session(visitor=Visitor(7, 8, is_owner=False))


def test_every_kind_is_a_function_of_the_page() -> None:
    handlers = (Handlers, ChatHandlers, DriftHandlers, DecisionHandlers, PushHandlers)
    assert [name for name in KINDS if not any(hasattr(kind, name) for kind in handlers)] == []


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (None, "done", ""),
        (Cancelled(), "cancelled", ""),
        (PromptError("empty_prompt"), "refused", "empty_prompt"),
        (MemoryError(), "failed", "out_of_memory"),
        (ValueError("a secret"), "failed", "ValueError"),
    ],
    ids=str,
)
def test_a_job_ends_in_one_of_so_many_ways(
    ended: list[Ended], session: Session, error: Exception | None, outcome: str, reason: str
) -> None:
    with watched("talk", session) as job:
        assert jobs.running()["chat"] == 1
        if error is not None:
            job.fail(error)
    [found] = ended
    assert (found.kind, found.visitor, found.outcome, found.reason) == ("chat", 7, outcome, reason)
    assert found.seconds >= 0
    assert jobs.running()["chat"] == 0


def test_a_visitor_who_leaves_has_left(ended: list[Ended], session: Session) -> None:
    def handler() -> Iterator[int]:
        with watched("compress", session):
            yield 1

    steps = handler()
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert [each.outcome for each in ended] == ["left"]


def test_a_hand_on_a_control_is_no_job(ended: list[Ended], session: Session) -> None:
    with watched("choose", session):
        pass
    assert ended == []
