"""A survey finds the errors that compressing has; what it found is kept, and what is not whole is measured again."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.base.errors import CheckpointError
from studio.base.json_cache import keep
from studio.base.progress import Progress
from studio.checkpoint import row_reader
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import ratio_defining
from studio.compression.compress import compress
from studio.planning import survey as survey_module
from studio.planning.choice import Choice, Pin
from studio.planning.layer_measured import LayerMeasured, progress_of
from studio.planning.plan import make_plan
from studio.planning.survey import candidates, score, sensitivities, survey
from studio.planning.survey_file import LayerSurvey, Survey, recall
from studio.quantization.scheme import Mode, Scheme
from tests.small import a_few_weights, counted_reads, plan_of, saved
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
WEIGHTS = ["b.0.up.weight", "b.0.down.weight", "b.0.experts", "head.weight", "embed.weight"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return saved(tmp_path / "model", a_few_weights())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int | None]]:
    return counted_reads(monkeypatch)


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight in several pieces."""
    monkeypatch.setattr(row_reader, "CHUNK_WEIGHTS", 700)


def kept_in(own_cache: Path) -> Path:
    [file] = (own_cache / "survey").iterdir()
    return file


# what is found


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("mode", Mode, ids=str)
def test_errors_are_those_of_compressing(checkpoint: Checkpoint, tmp_path: Path, mode: Mode) -> None:
    """Every mode, of weights worked on in several pieces; also those in which the whole weight shares something."""
    plan = plan_of(checkpoint, mode)
    wanted = {a.layer.name: [a.scheme] for a in plan.assignments if a.scheme is not None}
    found = finish(survey(checkpoint, None, wanted))
    errors = finish(compress(checkpoint, plan, tmp_path / "packed.safetensors")).relative_error
    assert errors.keys() == wanted.keys() == set(WEIGHTS)
    for a in plan.assignments:
        if a.scheme is not None:
            assert found.error(a.layer.name, a.scheme) == pytest.approx(errors[a.layer.name], rel=1e-4)


def test_every_weight_is_measured_in_every_usual_scheme_that_fits_it(checkpoint: Checkpoint) -> None:
    found = finish(survey(checkpoint))
    assert list(found.layers) == WEIGHTS
    for layer in ratio_defining(checkpoint.layers, all_layers=True):
        assert list(found.layers[layer.name].errors) == [str(scheme) for scheme in candidates(layer)]
        assert all(0 < error < 1 for error in found.layers[layer.name].errors.values())
    assert found.error("b.0.up.weight", None) == 0
    assert found.error("b.0.norm.weight", Scheme(Mode.NF4)) is None
    assert found.error("b.0.up.weight", Scheme(Mode.NF4, 2)) is None


@pytest.mark.usefixtures("_small_pieces")
def test_the_score_is_the_worst_channel_of_all_pieces(checkpoint: Checkpoint) -> None:
    from studio.quantization.quantize import channel_error

    found = finish(survey(checkpoint))
    for layer in ratio_defining(checkpoint.layers, all_layers=True):
        assert found.layers[layer.name].sensitivity == pytest.approx(score(channel_error(checkpoint.read(layer))))


@pytest.mark.usefixtures("_small_pieces")
def test_progress_counts_weights_up_to_all_of_them(checkpoint: Checkpoint) -> None:
    events = list(survey(checkpoint))
    steps = [progress_of(event) for event in events]
    done = [step.done for step in steps]
    assert done == sorted(done)
    total = sum(layer.numel for layer in checkpoint.layers if layer.is_weight)
    assert {step.total for step in steps} == {total} == {done[-1]}
    assert [event.layer for event in events if isinstance(event, LayerMeasured)] == WEIGHTS
    assert len(steps) > 2 * len(WEIGHTS)


def test_sensitivities_alone_are_those_of_the_survey(checkpoint: Checkpoint, own_cache: Path) -> None:
    alone = finish(sensitivities(checkpoint))
    kept_in(own_cache).unlink()
    assert alone == finish(survey(checkpoint)).sensitivities(checkpoint.layers)
    assert list(alone) == WEIGHTS


def test_sensitivities_are_unknown_while_one_is(checkpoint: Checkpoint) -> None:
    layers = finish(survey(checkpoint)).layers
    for name in WEIGHTS:
        assert Survey({n: line for n, line in layers.items() if n != name}).sensitivities(checkpoint.layers) is None


@pytest.mark.parametrize("job", [survey, sensitivities], ids=["survey", "sensitivities"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("row", [0, 40, 63], ids="row{}".format)
def test_weights_that_are_no_numbers_are_named(
    tmp_path: Path, job: Callable[[Checkpoint], Any], value: float, row: int
) -> None:
    weights = a_few_weights()
    weights["b.0.down.weight"][row, 3] = value
    with pytest.raises(CheckpointError) as caught:
        finish(job(saved(tmp_path / "damaged", weights)))
    assert (caught.value.key, caught.value.values) == ("not_finite", {"tensor": "b.0.down.weight"})


def test_a_scale_beyond_fp16_is_named_too(tmp_path: Path) -> None:
    weights = a_few_weights()
    weights["b.0.down.weight"][5, 3] = 1e8
    with pytest.raises(CheckpointError) as caught:
        finish(survey(saved(tmp_path / "damaged", weights)))
    assert caught.value.values == {"tensor": "b.0.down.weight"}


def test_a_weight_of_zeros_has_no_error(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "zeros", {"b.0.up.weight": torch.zeros(8, 64)})
    assert set(finish(survey(checkpoint)).layers["b.0.up.weight"].errors.values()) == {0.0}


# what is kept


def test_a_second_visit_reads_no_weight(checkpoint: Checkpoint, reads: list[Any]) -> None:
    first = finish(survey(checkpoint))
    assert {name for name, *_ in reads} == set(WEIGHTS)
    reads.clear()
    assert finish(survey(checkpoint)) == first == recall(checkpoint)
    assert finish(sensitivities(checkpoint)) == first.sensitivities(checkpoint.layers)
    assert reads == []


def test_sensitivities_are_kept_too(checkpoint: Checkpoint, reads: list[Any]) -> None:
    first = finish(sensitivities(checkpoint))
    reads.clear()
    assert finish(sensitivities(checkpoint)) == first
    assert reads == []
    assert len(finish(survey(checkpoint)).layers["embed.weight"].errors) == len(candidates(checkpoint.layers[0]))


def test_sensitivities_forget_no_errors(checkpoint: Checkpoint, own_cache: Path) -> None:
    steps = survey(checkpoint)
    next(steps)
    steps.close()
    finish(sensitivities(checkpoint))
    kept = recall(checkpoint)
    assert kept.sensitivities(checkpoint.layers) is not None
    assert [name for name, line in kept.layers.items() if line.errors] == WEIGHTS[:1]


@pytest.mark.usefixtures("_small_pieces")
def test_looking_at_a_whole_layer_first_is_progress_too(checkpoint: Checkpoint) -> None:
    [up] = [layer for layer in checkpoint.layers if layer.name == WEIGHTS[0]]
    pieces = len(row_reader.chunks(up))
    steps = survey(checkpoint, None, {up.name: [Scheme(Mode.NVFP4, 16), Scheme(Mode.CB4_LEARNED, 32)]})
    first = [step for step in steps if isinstance(step, Progress) and step.detail == up.name]
    assert len(first) == 2 * pieces - 1, "the last one comes with what was found"
    assert [step.done for step in first] == sorted({step.done for step in first})
    assert first[pieces - 1].done == up.numel // 2


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_closing_half_way_keeps_what_was_found(checkpoint: Checkpoint, reads: list[Any], layers: int) -> None:
    """Also where the next layer is begun; it is measured anew."""
    steps = survey(checkpoint)
    while layers:
        layers -= isinstance(next(steps), LayerMeasured)
    begun = next(steps)
    assert isinstance(begun, Progress)
    steps.close()
    found = list(recall(checkpoint).layers)
    assert found == WEIGHTS[: WEIGHTS.index(begun.detail)]
    reads.clear()
    whole = finish(survey(checkpoint))
    assert set(whole.layers) == set(WEIGHTS)
    assert {name for name, *_ in reads} == set(WEIGHTS) - set(found)


def test_a_mode_more_is_measured_on_top(checkpoint: Checkpoint, reads: list[Any]) -> None:
    first = finish(survey(checkpoint))
    reads.clear()
    extra = Scheme(Mode.FP4, 32)
    second = finish(survey(checkpoint, first, {"b.0.up.weight": [extra, Scheme(Mode.NF4, 32)]}))
    assert {name for name, *_ in reads} == {"b.0.up.weight"}
    for name in WEIGHTS:
        assert first.layers[name].errors.items() <= second.layers[name].errors.items()
    assert second.error("b.0.up.weight", extra) is not None
    assert second.layers["b.0.up.weight"].sensitivity == first.layers["b.0.up.weight"].sensitivity
    assert recall(checkpoint) == second


def test_what_the_caller_knows_is_not_changed(checkpoint: Checkpoint) -> None:
    known = Survey()
    finish(survey(checkpoint, known))
    assert known == Survey()


def test_a_visitor_who_knows_less_erases_nothing(checkpoint: Checkpoint) -> None:
    """Two sessions opened the model; one surveyed it, and the other one began to."""
    whole = finish(survey(checkpoint))
    steps = survey(checkpoint, Survey())
    next(steps)
    steps.close()
    assert recall(checkpoint) == whole


@pytest.mark.parametrize("name", ["survey", "sensitivities"])
def test_a_cache_that_cannot_be_written_costs_nothing_else(checkpoint: Checkpoint, own_cache: Path, name: str) -> None:
    shutil.rmtree(own_cache)
    own_cache.write_text("a file where the folder should be")
    assert finish(getattr(survey_module, name)(checkpoint))
    assert recall(checkpoint) == Survey()


# what is kept but cannot be believed

Damage = Callable[[Path, Checkpoint], None]


def signed(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what is kept, and sign it as whole."""
    figures = json.loads(file.read_text())["figures"]
    figures["layers"] = change(figures["layers"]) or figures["layers"]
    keep(file, figures)


def first_errors(layers: dict[str, Any]) -> dict[str, Any]:
    errors: dict[str, Any] = layers["b.0.up.weight"]["errors"]
    return errors


def a_digit_changed(file: Path) -> None:
    content = file.read_text()
    place = content.index("0.0", content.index('"layers"')) + 4
    file.write_text(content[:place] + str(9 - int(content[place])) + content[place + 1 :])


def another_version(file: Path) -> None:
    keep(file, json.loads(file.read_text())["figures"] | {"version": -1})


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut_short": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "empty": lambda file: file.write_bytes(b""),
    "a_digit_changed": a_digit_changed,
    "another_version": another_version,
    "digest_of_another": lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | {"digest": "0" * 64})),
    "foreign_layer": lambda file: signed(file, lambda layers: layers.update(other=layers["b.0.up.weight"])),
    "a_norm": lambda file: signed(file, lambda layers: layers.update({"b.0.norm.weight": layers["b.0.up.weight"]})),
    "nan": lambda file: signed(file, lambda layers: first_errors(layers).update({"nf4-g32": math.nan})),
    "infinite": lambda file: signed(file, lambda layers: layers["b.0.up.weight"].update(sensitivity=math.inf)),
    "negative": lambda file: signed(file, lambda layers: first_errors(layers).update({"nf4-g32": -0.1})),
    "a_word_for_a_number": lambda file: signed(file, lambda layers: first_errors(layers).update({"nf4-g32": "0.1"})),
    "true_for_a_number": lambda file: signed(file, lambda layers: first_errors(layers).update({"nf4-g32": True})),
    "a_scheme_that_is_none": lambda file: signed(file, lambda layers: first_errors(layers).update({"nf5-g32": 0.1})),
    "no_sensitivity": lambda file: signed(file, lambda layers: layers["b.0.up.weight"].pop("sensitivity") and None),
    "errors_in_a_list": lambda file: signed(file, lambda layers: layers["b.0.up.weight"].update(errors=[[1], [2]])),
    "layers_in_a_list": lambda file: signed(file, list),
    "a_list": lambda file: file.write_text("[]"),
    "a_signed_list": lambda file: keep(file, []),
    "a_signed_number": lambda file: keep(file, 7),
    "a_number": lambda file: file.write_text("7"),
    "not_json": lambda file: file.write_text("{'version': 1}"),
    "not_text": lambda file: file.write_bytes(b"\xff\xfe\x00\x80" * 50),
    "deep": lambda file: file.write_text("[" * 200_000 + "]" * 200_000),
    "deep_layers": lambda file: file.write_text('{"figures": ' + '{"a":' * 100_000 + "1" + "}" * 100_001),
    "a_long_number": lambda file: file.write_text('{"figures": ' + "9" * 10_000 + "}"),
    "a_folder": a_folder,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_not_whole_is_measured_again(
    checkpoint: Checkpoint, own_cache: Path, reads: list[Any], damage: Callable[[Path], object]
) -> None:
    first = finish(survey(checkpoint))
    before = kept_in(own_cache).read_bytes() if kept_in(own_cache).is_file() else b""
    damage(kept_in(own_cache))
    assert not kept_in(own_cache).is_file() or kept_in(own_cache).read_bytes() != before
    reads.clear()
    assert recall(checkpoint) == Survey()
    assert finish(survey(checkpoint)) == first
    assert {name for name, *_ in reads} == set(WEIGHTS)


def test_another_revision_is_another_survey(checkpoint: Checkpoint, tmp_path: Path) -> None:
    finish(survey(checkpoint))
    changed = a_few_weights()
    changed["b.0.up.weight"] *= torch.linspace(0.1, 2, 64)
    other = saved(tmp_path / "model", changed, revision="another")
    assert recall(other) == Survey()
    before, after = recall(checkpoint), finish(survey(other))
    assert before.layers["b.0.up.weight"] != after.layers["b.0.up.weight"]
    assert before.layers["b.0.down.weight"] == after.layers["b.0.down.weight"]


def test_joining_keeps_what_was_known_of_the_others() -> None:
    one, two = LayerSurvey({"nf4-g32": 0.1}, 1.0), LayerSurvey({"nf4-g64": 0.2}, 2.0)
    known = Survey({"a": one, "b": one})
    assert known.joined("a", two) == Survey({"a": LayerSurvey({"nf4-g32": 0.1, "nf4-g64": 0.2}, 2.0), "b": one})
    assert known.joined("c", two).layers.keys() == {"a", "b", "c"}
    assert known == Survey({"a": one, "b": one})


def test_a_plan_with_pins_is_found_in_the_survey_too(checkpoint: Checkpoint) -> None:
    pin = Pin("b.0.up", Scheme(Mode.INT3_SYM, 16))
    plan = make_plan(checkpoint.layers, Choice(group_size=32, pins=(pin,)))
    found = finish(survey(checkpoint, None, {"b.0.up.weight": [plan.scheme_of("b.0.up.weight")]}))  # type: ignore[list-item]
    assert found.error("b.0.up.weight", pin.scheme) is not None
