"""A session's survey, while the visitor does something else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import Cancelled, ModelError
from studio.base.progress import Progress
from studio.checkpoint.layers import ratio_defining
from studio.planning.choice import Choice
from studio.planning.fitting import fitting
from studio.quantization.scheme import Mode, Scheme
from studio.session.session import Session
from tests.small import counted_reads
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
MIXED = Choice(ratio=0.5)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, here: None) -> list[Any]:
    return counted_reads(monkeypatch)


def weights_of(session: Session) -> set[str]:
    assert session.checkpoint is not None
    return {layer.name for layer in session.checkpoint.layers if layer.is_weight}


def test_a_survey_is_known_as_it_comes(session: Session) -> None:
    counts = []
    for event in session.measurements.survey():
        counts.append(len(session.model.known.layers))
        assert event.stage == "survey"
        assert event.detail in weights_of(session)
    assert sorted(counts) == counts
    assert {1, 2, len(weights_of(session))} <= set(counts)
    assert session.model.known.layers.keys() == weights_of(session)
    assert session.planner.is_surveyed


def test_after_a_survey_choosing_reads_no_weight_and_is_exact(session: Session, reads: list[Any]) -> None:
    session.planner.choose(MIXED)
    assert session.plan is not None
    assert not session.plan.is_exact
    finish(session.measurements.survey())
    assert session.plan.is_exact
    reads.clear()
    for ratio in (0.2, 0.5, 0.9):
        plan = session.planner.choose(Choice(ratio=ratio))
        assert plan.is_exact
        assert all(session.model.known.error(a.layer.name, a.scheme) is not None for a in plan.assignments if a.scheme)
    session.planner.pin("*.q_proj", Scheme(Mode.NF4, 32))
    finish(session.measurements.survey())
    finish(session.measurements.rank())
    assert reads == []
    assert session.planner.is_surveyed


def test_a_mode_that_was_not_measured_is_measured_when_it_is_asked_for(session: Session, reads: list[Any]) -> None:
    finish(session.measurements.survey())
    session.planner.choose(Choice(Mode.NVFP4))
    assert not session.planner.is_surveyed
    finish(session.measurements.survey())
    assert session.planner.is_surveyed
    reads.clear()
    session.planner.choose(Choice(Mode.INT4_ASYM))
    assert session.planner.is_surveyed
    session.planner.choose(Choice(Mode.NVFP4))
    finish(session.measurements.survey())
    assert reads == []


def test_what_is_missing_is_known_before_it_is_measured(session: Session) -> None:
    """The page asks for nothing to be measured while nothing is missing."""
    assert session.is_unmeasured
    finish(session.measure())
    assert not session.is_unmeasured
    for mode in (Mode.INT8_SYM, Mode.NF4, Mode.INT4_ASYM):
        session.planner.choose(Choice(mode, 32, 0.5))
        assert not session.is_unmeasured
    session.planner.choose(Choice(Mode.NVFP4))
    assert session.is_unmeasured
    finish(session.measure())
    assert not session.is_unmeasured
    session.map_figure = "output"
    assert session.is_unmeasured
    finish(session.measure())
    assert not session.is_unmeasured
    assert session.model.output_errors.keys() < session.model.known.layers.keys()


def test_errors_follow_the_plan_and_what_is_known(session: Session) -> None:
    assert session.planner.errors == {}
    finish(session.measurements.survey())
    first = session.planner.errors
    assert first.keys() == weights_of(session)
    assert session.planner.errors is first  # looked up once
    plan = session.planner.choose(Choice(Mode.NF4))
    assert session.planner.errors == {
        a.layer.name: session.model.known.error(a.layer.name, a.scheme) for a in plan.assignments if a.scheme
    }
    session.planner.choose(Choice(Mode.NVFP4))
    before = len(session.planner.errors)
    finish(session.measurements.survey())
    assert before < len(session.planner.errors) == len(weights_of(session))


def test_visitors_who_are_measured_at_once_take_turns(session: Session, models: dict[str, Path]) -> None:
    other = Session(paths=True)
    finish(other.open(str(models["second"])))
    alone = session.measurements.survey()
    assert not next(alone).is_shared
    assert all(event.is_shared for event in other.measurements.survey())
    assert not any(event.is_shared for event in alone)
    assert session.planner.is_surveyed
    assert other.planner.is_surveyed
    other.close()


def test_a_pinned_scheme_is_surveyed_too(session: Session) -> None:
    session.planner.pin(Q_PROJ, Scheme(Mode.INT3_SYM, 16))
    finish(session.measurements.survey())
    assert session.planner.is_surveyed
    assert session.model.known.error(Q_PROJ, Scheme(Mode.INT3_SYM, 16))


def test_a_survey_is_of_another_visitor_too(session: Session, models: dict[str, Path], reads: list[Any]) -> None:
    finish(session.measurements.survey())
    reads.clear()
    other = Session(paths=True)
    finish(other.open(str(models["first"])))
    assert other.planner.is_surveyed
    assert other.planner.choose(MIXED) == session.planner.choose(MIXED)
    finish(other.measurements.survey())
    assert reads == []


@pytest.mark.parametrize("name", ["second", "other"])
def test_opening_another_model_ends_the_survey(session: Session, models: dict[str, Path], name: str) -> None:
    steps = session.measurements.survey()
    next(steps)
    finish(session.open(str(models[name])))
    finish(steps)
    assert session.model.known.layers == {}
    finish(session.measurements.survey())
    assert session.model.known.layers.keys() == weights_of(session)


@pytest.mark.parametrize("name", ["second", "other"])
def test_opening_another_model_ends_the_compression(session: Session, models: dict[str, Path], name: str) -> None:
    """Or its copy would answer, and be exported, under the other's name."""
    steps = session.compress()
    next(steps)
    finish(session.open(str(models[name])))
    with pytest.raises(Cancelled):
        finish(steps)
    assert session.copy.compressed is None
    assert session.checkpoint is not None
    assert session.checkpoint.name == str(models[name])


@pytest.mark.parametrize("name", ["second", "other"])
def test_a_survey_that_ends_after_another_model_was_opened_leaves_that_alone(
    session: Session, models: dict[str, Path], name: str
) -> None:
    """At its last step, where nothing is left to be stopped."""
    session.planner.choose(MIXED)
    steps = session.measurements.survey()
    while next(steps).fraction != 1:
        pass
    finish(session.open(str(models[name])))
    plan = session.plan
    session.jobs.clear_stop("survey")  # as the page does: it surveys the new model at once
    assert list(steps) == []
    assert session.model.scores is None
    assert session.plan is plan
    assert plan is not None
    assert {a.layer.name for a in plan.assignments if a.layer.is_weight} == weights_of(session)


def test_stop_ends_a_survey_and_keeps_what_was_found(session: Session, reads: list[Any]) -> None:
    steps = session.measurements.survey()
    next(steps)
    session.jobs.stop("survey")
    with pytest.raises(Cancelled):
        finish(steps)
    found = set(session.model.known.layers)
    assert 0 < len(found) < len(weights_of(session))
    reads.clear()
    finish(session.measurements.survey())
    assert {name for name, *_ in reads} >= weights_of(session) - found
    assert not {name for name, *_ in reads} & found


def test_there_is_nothing_to_survey_before_a_model_is_chosen() -> None:
    empty = Session(paths=True)
    assert list(empty.measurements.survey()) == []
    assert not empty.planner.is_surveyed
    with pytest.raises(ModelError):
        finish(empty.measurements.rank())
    with pytest.raises(ModelError):
        finish(empty.measurements.sample(4))


def linear_of(session: Session) -> set[str]:
    assert session.checkpoint is not None
    return {layer.name for layer in ratio_defining(session.checkpoint.layers)}


def test_output_errors_that_were_stopped_half_way_are_measured_to_the_end(session: Session) -> None:
    steps = session.measurements.measure_figure("output")
    while not session.model.output_errors:
        next(steps)
    session.jobs.stop("survey")
    with pytest.raises(Cancelled):
        finish(steps)
    assert 0 < len(session.model.output_errors) < len(linear_of(session))
    finish(session.measurements.measure_figure("output"))
    assert session.model.output_errors.keys() == linear_of(session)
    assert list(session.measurements.measure_figure("output")) == []


def test_a_plan_by_damage_waits_for_it_and_then_follows_it(session: Session) -> None:
    plan = session.planner.choose(Choice(Mode.INT4_ASYM, 32, 0.5, sensitivity="damage"))
    assert not plan.is_exact
    assert session.planner.predicted_drift is None
    assert session.is_unmeasured
    finish(session.measure())
    assert not session.is_unmeasured
    assert session.plan is not None
    assert session.plan.is_exact
    costs = {name: line["int4_asym-g32"] for name, line in session.model.damages.items()}
    numel = {a.layer.name: a.layer.numel for a in session.plan.assignments}
    coarse = [costs[name] / numel[name] for name in costs if session.plan.scheme_of(name) == Scheme(Mode.INT4_ASYM, 32)]
    fine = [costs[name] / numel[name] for name in costs if session.plan.scheme_of(name) == Scheme(Mode.INT8_ASYM)]
    assert max(coarse) <= min(fine)
    predicted = session.planner.predicted_drift
    assert predicted is not None
    session.planner.choose(replace(session.choice, ratio=1.0))
    assert session.plan is not None
    schemes = {name: str(session.plan.scheme_of(name)) for name in session.model.damages}
    assert {schemes[name] for name in linear_of(session)} == {"int4_asym-g32"}
    most = sum(line[schemes[name]] for name, line in session.model.damages.items())  # the embedding at 8 bits, too
    assert session.planner.predicted_drift == pytest.approx(most)
    assert predicted < most


def test_a_control_moved_while_a_plan_is_ranked_is_ranked_too(session: Session) -> None:
    session.planner.choose(Choice(Mode.INT4_ASYM, 32, 0.5, sensitivity="damage"))
    steps = session.compress()
    for event in steps:
        if event.stage == "damage":
            break
    session.planner.choose(Choice(Mode.INT5_SYM, 32, 0.5, sensitivity="damage"))  # not being measured
    compressed = finish(steps)
    assert compressed.plan.is_exact
    assert compressed.plan.choice.mode is Mode.INT5_SYM


def test_what_writes_no_text_has_no_damage_to_go_by(session: Session) -> None:
    choice = Choice(Mode.INT4_ASYM, 32, 0.5, sensitivity="damage")
    session.planner.choose(choice)
    assert session.checkpoint is not None
    session.model.checkpoint = replace(session.checkpoint, can_chat=False)
    with pytest.raises(ModelError, match="no damage"):
        finish(session.compress())
    assert fitting(choice, session.checkpoint.layers, session.checkpoint.can_chat).sensitivity == "nncf"


def test_output_errors_that_end_after_another_model_was_opened_leave_that_alone(
    session: Session, models: dict[str, Path]
) -> None:
    steps = session.measurements.measure_figure("output")
    while next(steps).fraction != 1 or len(session.model.output_errors) < len(linear_of(session)):
        pass
    finish(session.open(str(models["other"])))
    session.jobs.clear_stop("survey")
    assert list(steps) == []
    assert session.model.output_errors == {}


def test_a_sample_is_reported_and_not_taken_for_measured(session: Session) -> None:
    events = []

    def follow() -> Iterator[Progress]:
        sampled = yield from session.measurements.sample(2)
        assert sampled.keys() == weights_of(session)

    events = [event.stage for event in follow()]
    assert set(events) == {"sample"}
    assert session.model.known.layers == {}
    assert session.model.scores is None
