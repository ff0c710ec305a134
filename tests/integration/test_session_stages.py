"""A session's survey, its pins and its interrupted compressions, while the visitor does something else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import Cancelled, ModelError, SchemeError
from studio.base.progress import Progress
from studio.checkpoint import row_reader
from studio.checkpoint.layers import ratio_defining
from studio.compression import compress as compress_module
from studio.planning.choice import Choice, Pin
from studio.quantization.scheme import Mode, Scheme
from studio.session.planner import fitted_choice
from studio.session.session import Session
from tests.conftest import save_tiny_model
from tests.small import counted_reads
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
MIXED = Choice(ratio=0.5)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models whose layers have the same names, and one of other names."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_model("llama", folder / "first")
    save_tiny_model("llama", folder / "second", intermediate_size=192)
    save_tiny_model("gpt2", folder / "other")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def session(tmp_path: Path, models: dict[str, Path]) -> Iterator[Session]:
    visitor = Session(paths=True, workspace=tmp_path / "workspace")
    finish(visitor.open(str(models["first"])))
    yield visitor
    visitor.close()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, here: None) -> list[Any]:
    return counted_reads(monkeypatch)


def weights_of(session: Session) -> set[str]:
    assert session.checkpoint is not None
    return {layer.name for layer in session.checkpoint.layers if layer.is_weight}


# survey


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
    session.colour = "output"
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


def test_pins_were_for_the_model_before(session: Session, models: dict[str, Path]) -> None:
    session.planner.pin("*", Scheme.parse("int8_asym"))
    finish(session.open(str(models["second"])))
    assert session.choice.pins == ()


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
    session.jobs.begin("survey")  # as the page does: it surveys the new model at once
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
    assert session.planner.predicted_drift == pytest.approx(sum(costs.values()))
    assert predicted < sum(costs.values())


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
    assert fitted_choice(choice, session.checkpoint).sensitivity == "nncf"


def test_output_errors_that_end_after_another_model_was_opened_leave_that_alone(
    session: Session, models: dict[str, Path]
) -> None:
    steps = session.measurements.measure_figure("output")
    while next(steps).fraction != 1 or len(session.model.output_errors) < len(linear_of(session)):
        pass
    finish(session.open(str(models["other"])))
    session.jobs.begin("survey")
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


# pins


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
    assert session.choice.pins == ()


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


# interrupted compressions


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch, here: None) -> None:
    monkeypatch.setattr(row_reader, "CHUNK_WEIGHTS", 2048)


def half_way(session: Session) -> Any:
    steps = session.compress()
    while True:
        event = next(steps)
        if event.stage == "compress" and event.fraction is not None and event.fraction > 0.5:
            return steps


def weights_file(session: Session) -> bytes:
    assert session.copy.folder is not None
    return (session.copy.folder / "weights.studio").read_bytes()


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("how", ["stop", "close", "another_visitor"])
def test_an_interrupted_compression_is_taken_up_again(
    session: Session, models: dict[str, Path], tmp_path: Path, how: str
) -> None:
    finish(session.compress())
    expected = weights_file(session)
    steps = half_way(session)
    if how == "stop":
        session.jobs.stop("compress")
        with pytest.raises(Cancelled):
            next(steps)
    steps.close()
    other = session
    if how == "another_visitor":
        session.close()
        other = Session(paths=True, workspace=tmp_path / "other")
        finish(other.open(str(models["first"])))
    done = finish(other.compress())
    assert 0 < done.resumed < len(done.plan.assignments)
    assert weights_file(other) == expected
    other.close()


@pytest.mark.usefixtures("_small_pieces")
def test_two_at_the_same_job_do_not_disturb_each_other(
    session: Session, models: dict[str, Path], tmp_path: Path
) -> None:
    other = Session(paths=True, workspace=tmp_path / "other")
    finish(other.open(str(models["first"])))
    ours, theirs = half_way(session), half_way(other)
    finish(ours)
    finish(theirs)
    assert weights_file(session) == weights_file(other)
    assert session.copy.compressed is not None
    assert other.copy.compressed is not None
    assert session.copy.compressed.resumed == other.copy.compressed.resumed == 0
    other.close()


def test_an_error_leaves_nothing_to_go_on_with(
    session: Session, own_cache: Path, monkeypatch: pytest.MonkeyPatch, here: None
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(compress_module, "quantize", fail)
    with pytest.raises(MemoryError):
        finish(session.compress())
    assert not [path for path in own_cache.rglob("*") if ".safetensors" in path.name]
