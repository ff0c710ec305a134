"""A survey from a sample: where it has read everything it is the survey; elsewhere its intervals hold the truth."""

import math
import random as chances
import threading
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from studio.base import json_cache
from studio.base.errors import CheckpointError, HubError
from studio.checkpoint.checkpoint import Checkpoint
from studio.planning import sampled_survey as sample_module
from studio.planning.layer_measured import LayerMeasured
from studio.planning.sampled_survey import LARGEST, SampledLayer, draws, interval, recall, run_starts, sampled_survey
from studio.planning.survey import candidates, survey
from studio.quantization.quantize import measure
from studio.quantization.scheme import Mode, Scheme
from tests.small import CountedRanges, a_few_weights, counted_reads, random, saved
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
NAME = "b.0.up.weight"
HEIGHT, WIDTH, RUN = 1600, 64, 16


def varying(seed: int) -> Tensor:
    """Return a weight whose rows differ in size and in how well they round."""
    chance = torch.Generator().manual_seed(seed)
    rows = torch.exp(0.3 * torch.randn(HEIGHT, 1, generator=chance))
    weight = random(HEIGHT, WIDTH, seed=seed + 1).float() * rows
    weight[:, 0] *= 1 + 5 * torch.rand(HEIGHT, generator=chance)
    return weight.bfloat16()


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return saved(tmp_path_factory.mktemp("tall"), {NAME: varying(0)})


def test_where_all_rows_are_read_it_is_the_survey(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "model", a_few_weights())
    found, whole = finish(sampled_survey(checkpoint, runs=8, rows=16)), finish(survey(checkpoint))
    assert list(found) == list(whole.layers)
    for name, line in found.items():
        assert line.rows == next(layer.matrix[0] for layer in checkpoint.layers if layer.name == name)
        assert list(line.errors) == list(whole.layers[name].errors)
        for scheme, error in whole.layers[name].errors.items():
            one = line.errors[scheme]
            assert one.low == one.error == one.high == pytest.approx(error, rel=1e-4)
        assert line.sensitivity == pytest.approx(whole.layers[name].sensitivity)


def test_only_the_rows_wanted_are_read(tall: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = counted_reads(monkeypatch)
    found = finish(sampled_survey(tall, runs=5, rows=RUN))
    assert len(reads) == 5
    assert all(stop is not None and stop - start == RUN and start % RUN == 0 for _, start, stop in reads)
    assert len({start for _, start, _ in reads}) == 5
    assert found[NAME].rows == 5 * RUN


def test_a_seed_is_a_sample(tall: Checkpoint) -> None:
    def sample(seed: int) -> dict[str, SampledLayer]:
        return finish(sampled_survey(tall, runs=5, rows=RUN, seed=seed))

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_a_layer_s_rows_do_not_depend_on_the_others(tall: Checkpoint, tmp_path: Path) -> None:
    both = saved(tmp_path / "both", {"b.0.first.weight": random(64, 64), NAME: varying(0)})
    assert finish(sampled_survey(both, rows=RUN))[NAME] == finish(sampled_survey(tall, rows=RUN))[NAME]


def test_the_score_of_a_sample_is_no_lower_than_the_true_one(tall: Checkpoint) -> None:
    true = finish(survey(tall)).layers[NAME].sensitivity
    scores = [finish(sampled_survey(tall, runs=runs, rows=RUN))[NAME].sensitivity for runs in (2, 8, 50, 100)]
    assert scores[0] >= scores[-1]
    assert all(found >= true * (1 - 1e-6) for found in scores)
    assert scores[-1] == pytest.approx(true)


def test_bytes_are_counted(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "model", a_few_weights())
    place = CountedRanges(checkpoint.path)
    steps = [step for step in sampled_survey(checkpoint, place, runs=2, rows=4) if isinstance(step, LayerMeasured)]
    drawn = draws(checkpoint, runs=2, rows=4)
    assert [step.layer for step in steps] == [draw.layer.name for draw in drawn]
    assert [step.progress.done for step in steps] == list(accumulate(draw.nbytes for draw in drawn))
    assert {step.progress.total for step in steps} == {steps[-1].progress.done} == {sum(place.asked)}
    assert {draw.rows for draw in drawn} == {8}


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e8], ids=["nan", "inf", "beyond-fp16"])
def test_a_weight_that_is_no_number_is_named(tmp_path: Path, value: float) -> None:
    weights = a_few_weights()
    weights["b.0.down.weight"][0, 0] = value
    with pytest.raises(CheckpointError) as caught:
        finish(sampled_survey(saved(tmp_path / "damaged", weights)))
    assert caught.value.values == {"tensor": "b.0.down.weight"}


# the interval


@pytest.mark.parametrize("runs", [4, 8, 20])
@pytest.mark.parametrize("scheme", [Scheme(Mode.INT4_ASYM, 32), Scheme(Mode.INT8_SYM)], ids=str)
def test_the_interval_holds_the_true_error_as_often_as_it_says(tall: Checkpoint, scheme: Scheme, runs: int) -> None:
    """Of 200 samples about 190; the number that do is binomial, and fewer than 180 or all would be 1 in 1,000."""
    [layer] = tall.layers
    parts = [measure(tall.read(layer, start, start + RUN), [scheme]) for start in range(0, HEIGHT, RUN)]
    sums = [(part.differences[scheme], part.square) for part in parts]
    true = math.sqrt(sum(d for d, _ in sums) / sum(s for _, s in sums))
    held = 0
    widths = []
    for seed in range(200):
        starts = run_starts(HEIGHT, runs, RUN, chances.Random(seed))
        found = interval([sums[start // RUN] for start in starts], runs * RUN, layer)
        assert found.low <= found.error <= found.high
        held += found.low <= true <= found.high
        widths.append(found.high - found.low)
    assert 0.90 * 200 <= held <= 0.995 * 200
    assert 0 < sum(widths) / 200 < true


def test_more_runs_make_it_narrower(tall: Checkpoint) -> None:
    widths = []
    for runs in (4, 16, 64, 99):
        found = finish(sampled_survey(tall, runs=runs, rows=RUN))[NAME].errors["int4_asym-g32"]
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 0


@pytest.mark.parametrize(
    ("height", "runs", "rows", "count"),
    [(1, 8, 16, 1), (128, 8, 16, 8), (129, 8, 16, 8), (127, 8, 16, 8), (1600, 2, 16, 2), (0, 8, 16, 0)],
)
def test_runs_are_different_and_in_order(height: int, runs: int, rows: int, count: int) -> None:
    for seed in range(20):
        starts = run_starts(height, runs, rows, chances.Random(seed))
        assert len(starts) == len(set(starts)) == count
        assert starts == sorted(starts)
        assert all(start % rows == 0 and start < height for start in starts)


def test_every_run_can_be_drawn() -> None:
    drawn = {start for seed in range(200) for start in run_starts(160, 2, 16, chances.Random(seed))}
    assert drawn == set(range(0, 160, 16))


@pytest.mark.parametrize("runs", [[(0.01, 1.0)], [(0.0, 0.0), (0.0, 0.0)]], ids=["a_single_run", "nothing_but_zeros"])
def test_a_sample_that_says_nothing_of_the_rest_does_not_claim_to(
    tall: Checkpoint, runs: list[tuple[float, float]]
) -> None:
    found = interval(runs, len(runs) * RUN, tall.layers[0])
    assert (found.low, found.high) == (0.0, LARGEST)


def test_zeros_in_all_rows_are_known_to_be_without_error(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "zeros", {NAME: torch.zeros(32, 64)})
    assert {(i.low, i.error, i.high) for i in finish(sampled_survey(checkpoint))[NAME].errors.values()} == {(0, 0, 0)}


def test_what_is_sampled_is_what_a_survey_measures(tall: Checkpoint) -> None:
    schemes = [str(scheme) for scheme in candidates(tall.layers[0])]
    assert list(finish(sampled_survey(tall))[NAME].errors) == schemes


def test_a_mode_more_is_sampled_on_top_of_the_same_rows(tall: Checkpoint) -> None:
    first = finish(sampled_survey(tall, rows=RUN))[NAME]
    extra = Scheme(Mode.INT3_SYM, 32)
    second = finish(sampled_survey(tall, rows=RUN, wanted={NAME: [extra]}))[NAME]
    assert second.errors.items() > first.errors.items()
    assert second.errors[str(extra)].error > first.errors["int4_sym-g32"].error
    assert (second.sensitivity, second.rows) == (first.sensitivity, first.rows)


def test_a_mode_in_which_the_whole_layer_shares_numbers_is_left_out(tall: Checkpoint) -> None:
    """The largest of its scales, or its levels, are not those of some rows."""
    sharing = [Scheme(mode, mode.stored_as.group_sizes[-1]) for mode in Mode if mode.needs_whole]
    assert len(sharing) == 2
    found = finish(sampled_survey(tall, wanted={NAME: [*sharing, Scheme(Mode.FP4, 32)]}))
    assert "fp4-g32" in found[NAME].errors
    assert not found[NAME].errors.keys() & {str(scheme) for scheme in sharing}


def test_what_was_sampled_is_not_read_again(tall: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    first = finish(sampled_survey(tall, rows=RUN))
    reads = counted_reads(monkeypatch)
    assert recall(tall, rows=RUN) == first
    assert finish(sampled_survey(tall, rows=RUN)) == first
    assert reads == []
    for other in ({"rows": RUN, "seed": 1}, {"rows": RUN, "runs": 9}, {"rows": 2 * RUN}, {}):
        assert recall(tall, **other) == {}


def test_closing_half_way_keeps_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved(tmp_path / "model", a_few_weights())
    steps = sampled_survey(checkpoint)
    first = next(step for step in steps if isinstance(step, LayerMeasured))
    steps.close()
    assert recall(checkpoint).keys() == {first.layer}
    reads = counted_reads(monkeypatch)
    finish(sampled_survey(checkpoint))
    assert first.layer not in {name for name, *_ in reads}


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "foreign_layer": lambda lines: lines.update(other=lines[NAME]),
    "more_rows_than_there_are": lambda lines: lines[NAME].update(rows=HEIGHT + 1),
    "rows_in_words": lambda lines: lines[NAME].update(rows="128"),
    "no_rows": lambda lines: lines[NAME].pop("rows"),
    "nan": lambda lines: lines[NAME]["errors"].update({"nf4-g32": [math.nan, 0.0, 1.0]}),
    "negative": lambda lines: lines[NAME]["errors"].update({"nf4-g32": [0.1, -0.1, 1.0]}),
    "infinite": lambda lines: lines[NAME].update(sensitivity=math.inf),
    "two_numbers": lambda lines: lines[NAME]["errors"].update({"nf4-g32": [0.1, 0.2]}),
    "no_scheme": lambda lines: lines[NAME]["errors"].update({"nf5-g32": [0.1, 0.1, 0.1]}),
    "errors_in_a_list": lambda lines: lines[NAME].update(errors=[1]),
    "layer_in_a_list": lambda lines: lines.update({NAME: [1]}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_kept_figures_that_cannot_be_are_sampled_again(
    tall: Checkpoint, own_cache: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    first = finish(sampled_survey(tall, rows=RUN))
    [file] = (own_cache / "survey").iterdir()
    lines = json_cache.recall(file)
    damage(lines)
    json_cache.keep(file, lines)
    assert recall(tall, rows=RUN) == {}
    assert finish(sampled_survey(tall, rows=RUN)) == first


def test_a_place_that_does_not_answer_is_waited_for_with_a_word_now_and_then(
    tall: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_module, "BEAT", 0.01)
    go = threading.Event()

    class Slow(CountedRanges):
        def read(self, file: str, start: int, length: int) -> Tensor:
            go.wait()
            return super().read(file, start, length)

    steps = sampled_survey(tall, Slow(tall.path), rows=RUN)
    assert not any(isinstance(next(steps), LayerMeasured) for _ in range(3))
    go.set()
    assert finish(steps)[NAME].rows == 8 * RUN


def test_what_the_place_raises_is_raised(tall: Checkpoint) -> None:
    class Gone:
        def read(self, file: str, start: int, length: int) -> Tensor:
            raise HubError("hub_bad_range", file=file)

    with pytest.raises(HubError, match="read in parts"):
        finish(sampled_survey(tall, Gone()))


def test_where_the_file_has_rows_as_columns_whole_matrices_are_read(tmp_path: Path) -> None:
    """A few of its columns would cost as much: of a single matrix all rows are then known, of experts some experts."""
    one = saved(tmp_path / "one", {NAME: random(96, 2000)}, transposed=True)
    place = CountedRanges(one.path)
    line = finish(sampled_survey(one, place))[NAME]
    assert (line.rows, sum(place.asked)) == (2000, 2 * 96 * 2000)
    assert all(found.low == found.high for found in line.errors.values())
    assert line.errors["int4_asym-g32"].error == finish(survey(one)).layers[NAME].errors["int4_asym-g32"]
    many = saved(tmp_path / "many", {"b.0.experts": random(20, 96, 500)}, transposed=True)
    place = CountedRanges(many.path)
    line = finish(sampled_survey(many, place, runs=4))["b.0.experts"]
    assert (line.rows, sum(place.asked)) == (4 * 500, 4 * 2 * 96 * 500)
    assert line.errors["int4_asym-g32"].low < line.errors["int4_asym-g32"].high


def test_runs_of_other_lengths(tall: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = counted_reads(monkeypatch)
    found = finish(sampled_survey(tall, runs=3, rows=100))
    assert found[NAME].rows == 300
    assert {stop - start for _, start, stop in reads} == {100}
    [draw] = draws(tall)
    lengths = {stop - start for start, stop in draw.runs}
    assert lengths == {sample_module.RUN_WEIGHTS // WIDTH, HEIGHT % (sample_module.RUN_WEIGHTS // WIDTH)}
