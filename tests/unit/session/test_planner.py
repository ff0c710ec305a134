"""What a planner plans follows its model; what is found of the model before reaches that one alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from studio.base.errors import ModelError, SchemeError
from studio.checkpoint.layers import ratio_defining
from studio.planning.choice import Choice
from studio.planning.survey import candidates
from studio.planning.survey_file import LayerSurvey
from studio.quantization.scheme import Mode
from studio.session.opened_model import OpenedModel
from studio.session.planner import MAX_UNDO, Planner
from tests.small import a_few_weights, random, saved

UP = "b.0.up.weight"
MIXED = Choice(Mode.INT4_ASYM, 32, 0.5)


@pytest.fixture
def planner(model: OpenedModel) -> Planner:
    planner = Planner(Choice(group_size=32))
    planner.take(model)
    return planner


def survey_all(model: OpenedModel) -> None:
    for layer in model.chosen.layers:
        if layer.is_weight:
            model.add_survey(layer.name, LayerSurvey({str(s): 0.1 for s in candidates(layer)}, float(layer.numel)))


def test_nothing_is_planned_before_a_model_is_chosen() -> None:
    planner = Planner()
    assert planner.plan is None
    assert planner.errors == {}
    with pytest.raises(ModelError):
        planner.choose(MIXED)
    assert planner.choice == Choice()


def test_a_plan_becomes_exact_with_what_is_found_of_its_model(planner: Planner, model: OpenedModel) -> None:
    assert not planner.choose(MIXED).is_exact
    survey_all(model)
    model.rank()
    plan = planner.replan(model)
    assert plan is not None
    assert plan.is_exact
    assert planner.is_surveyed


def test_a_job_of_the_model_before_changes_nothing(planner: Planner, model: OpenedModel, tmp_path: Path) -> None:
    other = OpenedModel(saved(tmp_path / "other", a_few_weights()))
    planner.take(other)
    plan = planner.plan
    survey_all(model)
    model.rank()
    assert planner.replan(model) is None
    assert not planner.fetched(model, replace(model.chosen, folder=None))
    assert planner.plan is plan
    assert other.known.layers == {}
    assert other.scores is None
    assert planner.is_of(other)


def test_a_choice_that_cannot_be_changes_nothing(planner: Planner) -> None:
    before = planner.choice, planner.plan, planner.can_undo
    with pytest.raises(SchemeError):
        planner.choose(Choice(group_size=256))
    with pytest.raises(SchemeError):
        planner.pin("no.such.*", None)
    assert (planner.choice, planner.plan, planner.can_undo) == before


def test_undo_goes_back_as_far_as_it_remembers(planner: Planner) -> None:
    for step in range(MAX_UNDO + 5):
        planner.choose(replace(MIXED, ratio=(step + 20) / 200))
    count = 0
    while planner.can_undo:
        planner.undo()
        count += 1
    assert count == MAX_UNDO
    assert planner.choice.ratio == 24 / 200


def test_undo_gives_back_the_choice_before_and_its_plan(planner: Planner) -> None:
    before = planner.choice
    assert planner.plan is not None
    assignments = planner.plan.assignments
    planner.choose(replace(MIXED, mode=Mode.NF4))
    planner.pin(UP, None)
    planner.undo()
    assert planner.choice == replace(MIXED, mode=Mode.NF4)
    plan = planner.undo()
    assert plan is not None
    assert plan is planner.plan
    assert (plan.choice, plan.assignments) == (before, assignments)
    assert not planner.can_undo
    assert planner.undo() is plan


def test_the_choice_goes_on_with_another_model_as_far_as_it_can(planner: Planner, tmp_path: Path) -> None:
    planner.choose(replace(MIXED, mode=Mode.NF4))
    planner.pin(UP, None)
    planner.take(OpenedModel(saved(tmp_path / "wide", {"b.0.up.weight": random(32, 96)})))
    assert planner.choice == replace(MIXED, mode=Mode.NF4)
    planner.take(OpenedModel(saved(tmp_path / "odd", {"b.0.up.weight": random(32, 100)})))
    assert planner.choice.group_size == -1
    assert not planner.can_undo


def test_errors_are_those_of_the_plan_as_far_as_they_are_known(planner: Planner, model: OpenedModel) -> None:
    assert planner.errors == {}
    model.add_survey(UP, LayerSurvey({"int4_asym-g32": 0.2, "nf4-g32": 0.1}, 1.0))
    assert planner.errors == {UP: 0.2}
    planner.choose(replace(planner.choice, mode=Mode.NF4))
    assert planner.errors == {UP: 0.1}
    assert not planner.is_surveyed
    planner.pin(UP, None)
    assert planner.errors == {}, "kept at 16 bits"


def test_drift_is_predicted_once_every_linear_weight_has_its_damage(planner: Planner, model: OpenedModel) -> None:
    assert planner.predicted_drift is None
    first, *others = ratio_defining(model.chosen.layers)
    model.add_figures("damage", {each.name: {"int4_asym-g32": 0.25} for each in others})
    assert planner.predicted_drift is None
    model.add_figures("damage", {first.name: {}})
    assert planner.predicted_drift == 0.25 * len(others)
