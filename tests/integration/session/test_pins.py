"""A session's pins: planned around, undone, and gone with the model they were for."""

from pathlib import Path

import pytest

from studio.base.errors import SchemeError
from studio.planning.choice import Choice, Pin
from studio.quantization.scheme import Mode, Scheme
from studio.session.session import Session
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
MIXED = Choice(ratio=0.5)


def test_pins_were_for_the_model_before(session: Session, models: dict[str, Path]) -> None:
    session.planner.pin("*", Scheme.parse("int8_asym"))
    finish(session.open(str(models["second"])))
    assert session.choice.pins == ()


def test_a_pin_is_planned_around_and_can_be_undone(session: Session) -> None:
    before = session.plan
    plan = session.planner.pin(f" {Q_PROJ} ", None)
    assert plan.scheme_of(Q_PROJ) is None
    assert session.planner.can_undo
    assert session.planner.undo() == before
    assert session.choice.pins == ()
    assert not session.planner.can_undo


def test_undo_at_the_start_changes_nothing(session: Session) -> None:
    before = (session.plan, session.choice)
    assert session.planner.undo() is before[0]
    assert (session.plan, session.choice) == before


def test_the_latest_pin_comes_first_and_takes_the_place_of_its_own_pattern(session: Session) -> None:
    session.planner.pin("*.q_proj", None)
    session.planner.pin("*", Scheme(Mode.NF4, 32))
    assert session.choice.pins == (Pin("*", Scheme(Mode.NF4, 32)), Pin("*.q_proj", None))
    plan = session.planner.pin("*.q_proj", Scheme(Mode.INT8_SYM))
    assert session.choice.pins == (Pin("*.q_proj", Scheme(Mode.INT8_SYM)), Pin("*", Scheme(Mode.NF4, 32)))
    assert plan.scheme_of(Q_PROJ) == Scheme(Mode.INT8_SYM)
    for _ in range(3):
        session.planner.undo()
    assert not session.choice.pins


@pytest.mark.parametrize(
    ("pattern", "scheme", "key"),
    [
        ("no.such.layer", None, "no_such_layer"),
        ("model.norm.weight", None, "no_such_layer"),
        ("", None, "bad_pattern"),
        ("   ", None, "bad_pattern"),
        ("x" * 201, None, "bad_pattern"),
        (Q_PROJ, Scheme(Mode.NF4, 128), "pin_misfit"),
    ],
    ids=["unknown", "norm", "empty", "blank", "long", "misfit"],
)
def test_a_pin_that_cannot_be_changes_nothing(session: Session, pattern: str, scheme: Scheme | None, key: str) -> None:
    before = (session.plan, session.choice, session.planner.can_undo)
    with pytest.raises(SchemeError) as caught:
        session.planner.pin(pattern, scheme)
    assert caught.value.key == key
    assert "{" not in caught.value.sentence()
    assert (session.plan, session.choice, session.planner.can_undo) == before


def test_the_same_choice_again_is_nothing_to_undo(session: Session) -> None:
    session.planner.choose(MIXED)
    session.planner.choose(MIXED)
    session.planner.undo()
    assert not session.planner.can_undo


def test_another_model_has_nothing_to_undo(session: Session, models: dict[str, Path]) -> None:
    session.planner.pin(Q_PROJ, None)
    finish(session.open(str(models["second"])))
    assert not session.planner.can_undo
