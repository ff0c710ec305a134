"""A fault in the process that computes: its visitor reads a sentence, or nothing at all; others notice nothing."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import ProcessError
from studio.chat.answers import Answers
from studio.chat.model_pool import Pool
from studio.chat.worker_model import WorkerModel
from studio.planning.choice import Choice
from studio.runtime.sampling import Sampling
from studio.session.session import Session
from studio.session.shared import Shared
from tests.conftest import TEMPLATE, save_tiny_model
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
LONG = Sampling(max_new_tokens=40, temperature=1.0, seed=3)


@pytest.fixture
def pool() -> Iterator[Pool]:
    empty = Pool()
    yield empty
    for key in list(empty._models):
        empty.drop(key)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_tiny_model("llama", tmp_path / "model", max_position_embeddings=2048, eos_token_id=None, head_dim=32)
    (tmp_path / "model" / "chat_template.jinja").write_text(TEMPLATE)
    return tmp_path / "model"


def visitor(model: Path, workspace: Path, pool: Pool) -> Session:
    session = Session(Shared(pool), paths=True, workspace=workspace)
    finish(session.open(str(model)))
    return session


@pytest.fixture
def session(model: Path, tmp_path: Path, pool: Pool) -> Iterator[Session]:
    made = visitor(model, tmp_path / "workspace", pool)
    yield made
    made.close()


def texts(steps: Iterator[Any]) -> list[str]:
    *_, last = (item for item in steps if isinstance(item, Answers))
    assert [reply.error for reply in last.replies] == [None for _ in last.replies]
    return [reply.text for reply in last.replies]


def until(steps: Iterator[Any], tokens: int) -> None:
    next(item for item in steps if isinstance(item, Answers) and item.replies[0].tokens >= tokens)


def break_down(model: WorkerModel) -> None:
    """Let a fault of native code end the model's process."""
    os.kill(model.worker._child.pid, signal.SIGSEGV)  # type: ignore[attr-defined]


def loaded(pool: Pool) -> list[WorkerModel]:
    return [held.model for held in pool._models.values() if held.model is not None]


def test_two_visitors_whose_model_is_lost_read_their_answers_to_the_end(
    session: Session, model: Path, tmp_path: Path, pool: Pool
) -> None:
    expected = texts(session.chat("one two", LONG))
    session.conversation.forget()
    other = visitor(model, tmp_path / "other", pool)
    ours, theirs = session.chat("one two", LONG), other.chat("one two", LONG)
    until(ours, 5)
    until(theirs, 9)
    (shared,) = loaded(pool)
    break_down(shared)
    assert texts(ours) == texts(theirs) == expected
    assert not shared.is_alive
    assert texts(other.chat("and now", LONG)) != expected  # another model is loaded by itself
    other.close()


def test_a_model_that_is_lost_again_and_again_is_a_sentence(
    session: Session, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = []

    def lose(model: WorkerModel, *rest: Any) -> Any:
        lost.append(model)
        for reply in replies(model, *rest):
            yield reply
            break_down(model)

    from studio.chat import columns
    from studio.chat.worker_model import replies

    monkeypatch.setattr(columns, "replies", lose)
    *_, answers = session.chat("one two", LONG)
    assert isinstance(answers, Answers)
    (reply,) = answers.replies
    assert isinstance(reply.error, ProcessError)
    assert "SIGSEGV" in str(reply.error)
    assert len(set(map(id, lost))) == 2
    monkeypatch.undo()
    assert not [held for held in pool._models.values() if held.users]


def test_the_place_where_answers_part_is_found_in_the_workers(session: Session) -> None:
    session.planner.choose(Choice())
    finish(session.compress())
    *_, answers = session.chat("one two", Sampling(max_new_tokens=60, temperature=1.5, seed=1))
    assert isinstance(answers, Answers)
    assert answers.is_compared
    found = answers.divergence
    if found is not None:  # tiny models may agree
        assert all(0 <= share <= 1 for column in found.probabilities for share in column)


def test_drift_whose_process_is_lost_is_a_sentence_and_can_be_measured_again(
    session: Session, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.planner.choose(Choice())
    finish(session.compress())
    steps = session.measure_drift()
    next(event for event in steps if event.stage == "evaluate")
    (compressed,) = loaded(pool)
    break_down(compressed)
    with pytest.raises(ProcessError):
        finish(steps)
    again = session.measure_drift()
    assert next(event for event in again if event.stage == "evaluate")
    again.close()


def test_a_visitor_who_stops_or_leaves_frees_the_worker_for_the_next(session: Session, pool: Pool) -> None:
    steps = session.chat("one two", LONG)
    until(steps, 3)
    steps.close()  # type: ignore[attr-defined]
    (kept,) = loaded(pool)
    assert kept.is_alive
    assert len(texts(session.chat("one two", LONG))) == 1
    assert loaded(pool) == [kept]
