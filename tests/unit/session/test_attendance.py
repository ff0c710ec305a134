"""Whoever is gone is stopped, then gives back what is big, then is forgotten; who comes back in time loses nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.base.settings import settings
from studio.chat.conversation import Turn
from studio.planning.choice import Choice
from studio.quantization.scheme import Mode
from studio.session.attendance import Attendance, Standing
from studio.session.session import Session
from studio.session.shared import Shared
from studio.session.visitor import Visitor
from tests.steps import finish
from tests.visits import SHORT

pytestmark = pytest.mark.usefixtures("own_cache", "here")
STOP, FREE, FORGET = 5.0, 45.0, 3600.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Door:
    """Visits whose time a test tells."""

    def __init__(self, folder: Path) -> None:
        self.shared, self.clock, self._folder = Shared(), Clock(), folder
        self.attendance = Attendance(self.shared.pool, self.clock)

    def session(self, name: str, model: Path | None = None) -> Session:
        session = Session(self.shared, paths=True, workspace=self._folder / name, choice=Choice(Mode.INT4_ASYM, 32))
        self.attendance.arrive(name, session)
        if model is not None:
            finish(session.open(str(model)))
        return session

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.attendance.sweep()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    door = Door(tmp_path)
    said = settings()
    assert (said.stop_after, said.free_after, said.forget_after) == (STOP, FREE, FORGET)
    yield door
    door.after(FORGET + 1)
    assert len(door.attendance) == 0
    assert not door.shared.pool._idle()


@pytest.fixture
def llama(tiny_model: Callable[[str], Path]) -> Path:
    return tiny_model("llama")


def made(session: Session) -> Session:
    """Let a session compress its model and answer, so that it holds all that one can."""
    finish(session.compress())
    for _ in session.chat("Hello", SHORT):
        pass
    return session


def test_jobs_end_first_then_files_and_models_go_and_last_the_visit(door: Door, llama: Path, tmp_path: Path) -> None:
    session, told = made(door.session("one", llama)), list[str]()
    door.attendance.forgotten = told.append
    folder, turns = session.copy.folder, session.conversation.turns
    assert folder is not None
    door.after(STOP - 1)
    assert not session.jobs.should_stop("compress")()
    door.after(2)
    assert session.jobs.should_stop("compress")()
    assert folder.is_dir()
    door.after(FREE - STOP)
    assert not folder.exists()
    assert not session.is_holding
    assert not door.shared.pool._idle()
    assert session.conversation.turns == turns, "what was said is small"
    assert told == []
    door.after(FORGET - FREE)
    assert told == ["one"]
    assert not (tmp_path / "one").exists()
    assert not door.attendance.see("one").is_known


@pytest.mark.parametrize("back", ["connected", "asked"])
def test_who_is_back_in_time_loses_nothing(door: Door, llama: Path, back: str) -> None:
    session = made(door.session("one", llama))
    door.after(FREE - 1)
    assert session.jobs.should_stop("chat")()
    if back == "asked":
        assert door.attendance.see("one") == Standing(is_known=True, is_connected=False, is_let_go=False)
    else:
        with door.attendance.connected("one"):
            door.after(10 * FORGET)
    door.after(FREE - 1)
    assert session.copy.is_holding
    door.attendance.see("one")
    assert not session.jobs.should_stop("chat")(), "nor is what they ask for next stopped at once"


def test_one_of_two_connections_is_enough(door: Door, llama: Path) -> None:
    session = made(door.session("one", llama))
    with door.attendance.connected("one"):
        with door.attendance.connected("one"):
            pass
        door.after(2 * FREE)
        assert session.copy.is_holding


def test_a_model_that_another_visitor_comes_back_to_stays(door: Door, llama: Path) -> None:
    gone, here = made(door.session("gone", llama)), made(door.session("here", llama))
    with door.attendance.connected("here"):
        door.after(FREE + 1)
        assert not gone.copy.is_holding
        assert here.copy.is_holding
        assert set(door.shared.pool._idle()) == here.model_keys


def test_what_a_late_job_still_makes_is_given_back_too(door: Door, llama: Path) -> None:
    session = made(door.session("one", llama))
    door.after(FREE + 1)
    session.jobs.clear_all()
    finish(session.compress())
    assert session.copy.is_holding
    door.after(1)
    assert not session.copy.is_holding


def test_a_second_visit_under_one_key_closes_the_first(door: Door, llama: Path, tmp_path: Path) -> None:
    first = made(door.session("one", llama))
    second = Session(door.shared, workspace=tmp_path / "second")
    door.attendance.arrive("one", second)
    assert not first.is_holding
    assert not (tmp_path / "one").exists()
    assert len(door.attendance) == 1


def test_a_visitor_whose_worker_is_dead_keeps_no_other_from_giving_back(
    door: Door, llama: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, other = door.session("broken"), made(door.session("other", llama))

    def fails() -> None:
        raise OSError("the worker is gone")

    monkeypatch.setattr(broken, "let_go", fails)
    door.after(FREE + 1)
    assert not other.is_holding
    assert "not all that a visitor held was given back" in caplog.text


class Reloaded:
    """Two visits of one browser, the first of which was left."""

    def __init__(self, door: Door, llama: Path) -> None:
        self.before = made(door.session("before", llama))
        self.before.decision.key = "browser"
        self.after = door.session("after")
        self.after.decision.key = "browser"


def test_a_reload_goes_on_with_the_copy_and_what_was_said(door: Door, llama: Path, tmp_path: Path) -> None:
    two = Reloaded(door, llama)
    left = door.attendance.left_by("browser", but=two.after)
    assert left is two.before
    two.after.go_on_from(left)
    finish(two.after.open(str(llama)))
    turns: tuple[Turn, ...] = two.after.conversation.turns
    assert len(turns) == 1
    with door.attendance.connected("after"):
        door.after(2 * FREE)
        *_, last = two.after.chat("And now?", SHORT)
        answers: Any = last
        assert [reply.error for reply in answers.replies] == [None, None]
        finish(two.after.copy.archive(tmp_path / "archive"))
    door.after(FREE + 1)
    assert not two.after.is_holding
    assert not any(path.is_file() for path in (tmp_path / "before").rglob("*"))


def test_a_reload_with_another_model_gives_the_copy_back(
    door: Door, llama: Path, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    two = Reloaded(door, llama)
    two.after.go_on_from(two.before)
    finish(two.after.open(str(tiny_model("gpt2"))))
    assert not two.before.is_holding
    assert not (tmp_path / "before").exists()
    assert two.after.conversation.turns == ()


def test_a_page_that_is_open_is_nobodys_to_take_over(door: Door, llama: Path) -> None:
    two = Reloaded(door, llama)
    with door.attendance.connected("before"):
        assert door.attendance.left_by("browser", but=two.after) is None
    assert door.attendance.left_by("", but=two.after) is None
    assert door.attendance.left_by("another", but=two.after) is None


def test_another_visitor_who_says_the_same_key_takes_nothing_over(door: Door, llama: Path) -> None:
    two = Reloaded(door, llama)
    two.after.visitor = Visitor(number=2, is_owner=False)
    assert door.attendance.left_by("browser", but=two.after) is None
    two.after.visitor = two.before.visitor
    assert door.attendance.left_by("browser", but=two.after) is two.before


def test_two_quick_reloads_lose_nothing(door: Door, llama: Path) -> None:
    """The second comes before the first has opened its model."""
    two = Reloaded(door, llama)
    first = door.attendance.left_by("browser", but=two.after)
    assert first is two.before
    two.after.go_on_from(first)
    third = door.session("third")
    third.decision.key = "browser"
    left = door.attendance.left_by("browser", but=third)
    assert left is two.after
    third.go_on_from(left)
    finish(third.open(str(llama)))
    assert third.is_holding
    assert len(third.conversation.turns) == 1
