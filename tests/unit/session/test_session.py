"""Whether a copy is that of what is chosen now: a text that its method reads makes it stale, another does not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from studio.base import fair_turns
from studio.base.errors import ResourceError
from studio.chat import model_pool
from studio.planning.choice import Choice
from studio.quantization.methods import Method
from studio.quantization.scheme import Mode
from studio.session.admission import calibration_need, measuring_need
from studio.session.session import Session
from studio.session.shared import Shared
from tests.conftest import SENTENCES
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def session(tiny_model: Callable[[str], Path], tmp_path: Path) -> Iterator[Session]:
    session = Session(Shared(), paths=True, workspace=tmp_path / "workspace", choice=Choice(Mode.INT4_ASYM, 32))
    finish(session.open(str(tiny_model("llama"))))
    yield session
    session.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.txt"
    file.write_text(" ".join(SENTENCES * 60))
    return file


@pytest.mark.parametrize("method", [Method.GPTQ, Method.NEAREST], ids=["reads a text", "reads none"])
def test_a_text_that_its_method_reads_makes_a_copy_stale(session: Session, file: Path, method: Method) -> None:
    choice = Choice(Mode.INT4_ASYM, 32, method=method)
    session.planner.choose(choice)
    assert not session.is_copy_of_choice, "there is none"
    session.texts.calibrate_on(file)
    finish(session.compress())
    assert session.is_copy_of_choice
    assert session.is_copy_of_plan
    session.texts.evaluate_on(file)
    assert session.is_copy_of_choice, "no copy is made of it"
    session.texts.calibrate_on(None)
    assert session.is_copy_of_choice == session.is_copy_of_plan == (not method.needs_inputs)
    session.texts.calibrate_on(file)
    assert session.is_copy_of_choice, "it says the same as before"


def test_a_choice_makes_a_copy_stale_until_it_is_undone(session: Session) -> None:
    finish(session.compress())
    session.planner.pin(Q_PROJ, None)
    assert not session.is_copy_of_choice
    assert not session.is_copy_of_plan
    session.planner.undo()
    assert session.is_copy_of_choice
    assert session.is_copy_of_plan


def test_the_same_model_opened_again_keeps_its_copy_and_another_does_not(
    session: Session, tiny_model: Callable[[str], Path]
) -> None:
    finish(session.compress())
    finish(session.open(str(tiny_model("llama"))))
    assert session.is_copy_of_plan
    finish(session.open(str(tiny_model("gpt2"))))
    assert session.copy.compressed is None
    assert not session.is_copy_of_choice


def test_a_method_that_does_not_fit_is_refused_before_anything_is_fetched(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pool, "available_memory", lambda: 50 << 20)
    session.planner.choose(Choice(Mode.INT4_ASYM, 32, method=Method.GPTQ))
    steps = session.compress()
    with pytest.raises(ResourceError) as caught:
        next(steps)
    assert caught.value.key == "calibration_memory"
    assert caught.value.values["fits"] == Method.HALF_QUADRATIC
    assert "--method gptq" in str(caught.value.values["command"])
    session.planner.choose(Choice(Mode.INT4_ASYM, 32, method=Method.HALF_QUADRATIC))
    assert finish(session.compress()).plan.choice.method is Method.HALF_QUADRATIC, "what it is told to take fits"


def test_a_comparison_that_does_not_fit_is_refused_with_what_to_run(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(session.compress())
    monkeypatch.setattr(model_pool, "available_memory", lambda: 50 << 20)
    with pytest.raises(ResourceError) as caught:
        finish(session.measure_drift())
    assert caught.value.key == "drift_memory"
    assert "evaluate" in str(caught.value.values["command"])


def test_who_compresses_waits_for_a_place_and_who_fetches_does_not(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_turns, "LOOK", 0.01)
    turns = session.jobs.visitor.turns
    others = [turns.visitor() for _ in range(fair_turns.PLACES)]
    with ExitStack() as places:
        for other in others:
            places.enter_context(finish(other.place()))
        finish(session.fetch())
        waits = session.compress()
        told = next(step for step in waits if step.stage == "queue")
        assert told.line is not None
        assert told.line.before == 0
        assert session.copy.compressed is None
    finish(waits)
    assert session.copy.compressed is not None


def test_a_visitor_who_compresses_twice_at_once_does_it_one_after_the_other(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_turns, "LOOK", 0.01)
    first, second = session.compress(), session.compress()
    while next(first).stage != "compress":
        pass
    assert [next(second).stage for _ in range(20)][-5:] == ["begin"] * 5
    made = finish(first)
    assert session.copy.compressed is made
    again = finish(second)
    assert session.copy.compressed is again
    assert again.plan == made.plan


@pytest.mark.parametrize("is_short", [False, True], ids=["the larger fits", "the larger does not"])
def test_ranking_and_calibrating_take_memory_one_after_the_other(
    session: Session, monkeypatch: pytest.MonkeyPatch, is_short: bool
) -> None:
    choice = Choice(Mode.INT4_ASYM, 32, 0.5, sensitivity="damage", method=Method.GPTQ)
    session.planner.choose(choice)
    checkpoint = session.model.chosen
    needs = [need.nbytes for need in (calibration_need(checkpoint, choice.method), measuring_need(checkpoint))]
    there = max(needs) + (-1 if is_short else min(needs) // 2)
    monkeypatch.setattr(model_pool, "available_memory", lambda: int(there / model_pool.HEADROOM) + 1 - 2 * is_short)
    if is_short:
        fetched = []
        monkeypatch.setattr(session, "_fetched", lambda model: fetched.append(model))
        with pytest.raises(ResourceError):
            finish(session.compress())
        assert fetched == []
        return
    finish(session.compress())
    assert session.is_copy_of_plan


def test_ranking_by_damage_alone_is_refused_before_a_model_is_fetched(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.planner.choose(Choice(Mode.INT4_ASYM, 32, 0.5, sensitivity="damage"))
    monkeypatch.setattr(model_pool, "available_memory", lambda: 1 << 20)
    monkeypatch.setattr(session, "_fetched", lambda model: pytest.fail("it was fetched"))
    with pytest.raises(ResourceError) as caught:
        finish(session.compress())
    assert caught.value.key == "measuring_memory"
