"""What a planner plans follows its model; what is found of the model before reaches that one alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from studio.base.errors import ModelError, SchemeError
from studio.planning.choice import Choice
from studio.planning.survey import candidates
from studio.planning.survey_file import LayerSurvey, recall
from studio.quantization.scheme import Mode
from studio.session.opened_model import OpenedModel
from studio.session.planner import MAX_UNDO, Planner
from studio.session.session import Session
from studio.session.shared import Shared, of_this_process
from tests.small import a_few_weights, saved

UP = "b.0.up.weight"
MIXED = Choice(Mode.INT4_ASYM, 32, 0.5)


@pytest.fixture
def model(tmp_path: Path) -> OpenedModel:
    return OpenedModel(saved(tmp_path / "model", a_few_weights()))


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


def test_figures_of_two_measurements_are_joined(model: OpenedModel) -> None:
    model.add_figures("damage", {UP: {"int4_asym-g32": 0.2}})
    model.add_figures("damage", {UP: {"int8_asym": 0.1}})
    assert model.damages == {UP: {"int4_asym-g32": 0.2, "int8_asym": 0.1}}
    assert model.output_errors == {}


def test_a_model_that_is_opened_knows_what_earlier_visits_found(model: OpenedModel) -> None:
    assert OpenedModel.of(model.chosen).known == recall(model.chosen)
    assert OpenedModel.of(model.chosen).is_of(replace(model.chosen, folder=None))


def test_sessions_share_what_they_are_given(tmp_path: Path) -> None:
    alone = Shared()
    assert of_this_process() is of_this_process()
    assert alone.pool is not of_this_process().pool
    session = Session(alone, workspace=tmp_path / "workspace")
    assert session.checkpoint is None
    session.close()
