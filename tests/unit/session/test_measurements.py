"""What is found of a model's layers is that model's; a job ends when it is stopped, closed, or its model was left."""

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest

from studio.base.errors import Cancelled, ModelError
from studio.base.fair_turns import Turns
from studio.base.progress import Job, Progress
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import ratio_defining
from studio.planning.choice import Choice
from studio.quantization.scheme import Mode, Scheme
from studio.session.jobs import Jobs
from studio.session.measurements import Measurements
from studio.session.opened_model import OpenedModel
from studio.session.planner import Planner
from tests.small import random, saved
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
UP = "b.0.up.weight"
MIXED = Choice(Mode.INT4_ASYM, 32, 0.5)
Start = Callable[[Measurements], Generator[Progress, None, object]]
SURVEY: Start = Measurements.survey
SAMPLE: Start = Measurements.sample
RANK: Start = Measurements.rank


@pytest.fixture
def planner(model: OpenedModel) -> Planner:
    planner = Planner(MIXED)
    planner.take(model)
    return planner


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def measurements(planner: Planner, jobs: Jobs) -> Measurements:
    return Measurements(planner, jobs)


def weights_of(model: OpenedModel) -> set[str]:
    return {layer.name for layer in model.chosen.layers if layer.is_weight}


def another(folder: Path) -> OpenedModel:
    return OpenedModel(saved(folder, {UP: random(32, 64, seed=9)}))


def test_before_a_model_is_chosen_there_is_nothing_to_find() -> None:
    empty = Measurements(Planner(), Jobs())
    assert not empty.is_lacking("weight")
    assert list(empty.measure("weight")) == []
    for start in (SAMPLE, RANK):
        with pytest.raises(ModelError):
            finish(start(empty))


def test_a_survey_knows_every_weight_and_makes_the_plan_exact(measurements: Measurements, planner: Planner) -> None:
    planner.pin(UP, Scheme(Mode.INT3_SYM, 64))
    assert planner.plan is not None
    assert not planner.plan.is_exact
    assert measurements.is_lacking("weight")
    told = list(measurements.survey())
    assert planner.model.known.layers.keys() == weights_of(planner.model) == {each.detail for each in told}
    assert "int3_sym-g64" in planner.model.known.layers[UP].errors, "what the plan asks for, too"
    assert planner.plan.is_exact
    assert planner.is_surveyed
    assert not measurements.is_lacking("weight")
    assert measurements.is_lacking("output"), "which takes a text"


def test_files_elsewhere_are_not_read(measurements: Measurements, planner: Planner) -> None:
    planner.take(OpenedModel(replace(planner.model.chosen, folder=None)))
    assert not measurements.is_lacking("weight")
    assert list(measurements.measure("output")) == []
    assert list(measurements.rank()) == []
    assert planner.model.scores is None


def test_ranking_finds_the_scores_once(measurements: Measurements, planner: Planner) -> None:
    finish(measurements.rank())
    assert planner.choose(MIXED).is_exact
    scores = planner.model.scores
    assert list(measurements.rank()) == []
    assert planner.model.scores is scores


def test_a_sample_is_an_estimate_and_nothing_is_known_of_it(measurements: Measurements, planner: Planner) -> None:
    steps = measurements.sample(2)
    next(steps)
    assert measurements.is_sampling
    sample = finish(steps)
    assert not measurements.is_sampling
    assert planner.model.sampled == sample
    assert set(sample) == weights_of(planner.model)
    assert planner.model.known.layers == {}
    assert planner.plan is not None
    assert not planner.plan.is_exact


@pytest.mark.parametrize("start", [SURVEY, SAMPLE, RANK], ids=["survey", "sample", "rank"])
def test_a_job_of_a_model_that_was_left_ends_and_leaves_the_new_one_alone(
    measurements: Measurements, planner: Planner, tmp_path: Path, start: Start
) -> None:
    steps = start(measurements)
    next(steps)
    other = another(tmp_path / "other")
    planner.take(other)
    plan = planner.plan
    if start is SURVEY:
        assert list(steps) == []
    else:
        with pytest.raises(Cancelled):
            finish(steps)
    assert not measurements.is_sampling
    assert other.known.layers == {}
    assert other.sampled == {}
    assert other.scores is None
    assert planner.plan is plan
    finish(measurements.survey())
    assert set(other.known.layers) == {UP}


@pytest.mark.parametrize(
    ("start", "job"), [(SURVEY, "survey"), (SAMPLE, "sample"), (RANK, "compress")], ids=["survey", "sample", "rank"]
)
def test_a_job_that_is_stopped_ends_and_can_be_begun_again(
    measurements: Measurements, jobs: Jobs, start: Start, job: Job
) -> None:
    steps = start(measurements)
    next(steps)
    jobs.stop(job)
    with pytest.raises(Cancelled):
        finish(steps)
    assert not measurements.is_sampling
    finish(start(measurements))


def test_closing_a_survey_keeps_what_was_found_and_gives_back_its_turn(planner: Planner) -> None:
    turns = Turns()
    steps = Measurements(planner, Jobs(turns)).survey()
    while not planner.model.known.layers:
        next(steps)
    assert turns.jobs == 1
    steps.close()
    assert turns.jobs == 0
    assert planner.model.known.layers
    assert planner.model.scores is None


def test_who_takes_turns_is_told_so(planner: Planner, model: OpenedModel) -> None:
    turns = Turns()
    one, other = Measurements(planner, Jobs(turns)).survey(), Measurements(planner, Jobs(turns)).survey()
    assert not next(one).is_shared
    assert next(other).is_shared
    other.close()
    one.close()


def test_what_writes_no_text_has_no_damage_to_go_by(measurements: Measurements, planner: Planner) -> None:
    measurements.check_can_predict()
    planner.take(OpenedModel(replace(planner.model.chosen, can_chat=False)))
    planner.choose(replace(MIXED, sensitivity="damage"))
    for ask in (measurements.check_can_predict, lambda: finish(measurements.rank())):
        with pytest.raises(ModelError) as raised:
            ask()
        assert raised.value.key == "no_damage"
    planner.choose(replace(MIXED, ratio=1.0, sensitivity="damage"))
    measurements.check_can_predict()


def test_a_figure_over_a_text_is_of_every_linear_weight_and_measured_once(
    llama: Checkpoint, planner: Planner, measurements: Measurements
) -> None:
    planner.take(OpenedModel(llama))
    finish(measurements.measure_figure("output"))
    assert planner.model.output_errors.keys() == {layer.name for layer in ratio_defining(llama.layers)}
    assert planner.model.damages == {}
    assert list(measurements.measure_figure("output")) == []
