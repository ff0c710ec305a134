"""Models that visitors share in memory: one original for all, room for the next, and what does not fit is refused."""

from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import ResourceError
from studio.base.units import format_bytes
from studio.chat import columns as columns_module
from studio.chat import model_pool as pool_module
from studio.chat.answers import Answers
from studio.chat.columns import compressed_column
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import Checkpoint
from studio.runtime.decoder import Decoder, open_original
from studio.session.session import Session
from studio.session.shared import Shared
from tests.steps import finish
from tests.visits import INT4, QUESTION, SHORT, TinyModel, ask, errors, until_answers


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, here: None) -> list[str]:
    """The names of the originals that were loaded."""
    names: list[str] = []

    def load(checkpoint: Checkpoint) -> Decoder[Any]:
        names.append(checkpoint.name)
        return open_original(checkpoint)

    monkeypatch.setattr(columns_module, "open_original", load)
    return names


def test_two_sessions_share_one_original(opened: Session, tmp_path: Path, loads: list[str], pool: Pool) -> None:
    other = Session(Shared(pool), paths=True, workspace=tmp_path / "other")
    finish(other.open(opened.checkpoint.name))  # type: ignore[union-attr]
    for session in (opened, other):
        finish(session.compress())
    ours, theirs = opened.chat(QUESTION, SHORT), other.chat("one two", SHORT)
    until_answers(ours)
    until_answers(theirs)
    assert len(loads) == 1
    for last in ours, theirs:
        *_, answers = last
        assert isinstance(answers, Answers)
        assert errors(answers) == [None, None]
    assert opened.conversation.columns[0][0]["content"] == QUESTION
    assert other.conversation.columns[0][0]["content"] == "one two"
    other.close()
    assert errors(ask(opened)) == [None, None]
    assert len(loads) == 1


def free_memory(nbytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "available_memory", lambda: int(nbytes))


def test_a_model_that_does_not_fit_is_refused_with_the_arithmetic(
    talking: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert talking.plan is not None
    free_memory(1000, monkeypatch)
    answers = ask(talking)
    assert errors(answers) == ["memory", "memory"]
    first, second = (reply.error for reply in answers.replies)
    assert isinstance(first, ResourceError)
    assert first.values == {"need": format_bytes(talking.plan.original_bytes), "free": "900 B"}
    assert isinstance(second, ResourceError)
    assert second.values["free"] == "900 B"
    assert talking.conversation.columns == ([], [])
    monkeypatch.undo()
    assert errors(ask(talking)) == [None, None]


def test_where_only_the_compressed_model_fits_it_answers_alone(
    opened: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.planner.choose(INT4)
    plan = finish(opened.compress()).plan
    assert opened.copy.folder is not None
    need = compressed_column(opened.copy.folder).need
    assert plan.compressed_bytes < need < plan.original_bytes
    free_memory((need + plan.original_bytes) / 2 / pool_module.HEADROOM, monkeypatch)
    answers = ask(opened)
    assert answers.is_compressed_only
    assert errors(answers) == [None, None]
    assert [reply.tokens for reply in answers.replies] == [0, SHORT.max_new_tokens]
    assert answers.reference_score is not None
    assert len(answers.reference_score.tokens) == SHORT.max_new_tokens


def test_an_idle_model_makes_room_and_one_in_use_does_not(
    opened: Session, tiny_model: TinyModel, tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Session(Shared(pool), paths=True, workspace=tmp_path / "other")
    finish(other.open(str(tiny_model("gpt2"))))
    steps = opened.chat(QUESTION, SHORT)
    until_answers(steps)

    def available() -> int:
        """Room for one model."""
        return 0 if pool._models else 1 << 30

    monkeypatch.setattr(pool_module, "available_memory", available)
    assert errors(ask(other)) == ["memory"]
    *_, last = steps
    assert errors(last) == [None]  # type: ignore[arg-type]
    assert errors(ask(other)) == [None]
    assert len(pool._models) == 1
