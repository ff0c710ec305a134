"""Compressing writes the plan's bytes; interrupted anywhere and started again, it writes the same bytes."""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.checkpoint import checkpoint as checkpoint_module
from studio.checkpoint import row_reader
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.headers import read_header
from studio.compression import compress as compress_module
from studio.compression import journal
from studio.compression.compress import Compressed, compress, job_digest, slots
from studio.planning.choice import Choice, Pin
from studio.planning.plan import Plan, make_plan
from studio.quantization.packing import pack
from studio.quantization.quantize import relative
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from tests.small import a_few_weights, counted_reads, plan_of, random, saved
from tests.steps import finish

in_every_mode = pytest.mark.parametrize("mode", Mode, ids=str)
INTERRUPTED = (Mode.INT4_ASYM, Mode.NVFP4, Mode.CB4_LEARNED)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return saved(tmp_path / "model", a_few_weights())


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight in several pieces, and a journal that is written at every tensor."""
    monkeypatch.setattr(row_reader, "CHUNK_WEIGHTS", 2100)
    monkeypatch.setattr(checkpoint_module, "PIECE_WEIGHTS", 2100)
    monkeypatch.setattr(journal, "SYNC_BYTES", 0)


def kept_too(checkpoint: Checkpoint, mode: Mode) -> Plan:
    """Return a plan of ``mode`` that leaves the embedding and one weight at 16 bits."""
    pins = (Pin("b.0.down", None), Pin("embed", None), Pin("head", Scheme(Mode.INT8_ASYM)))
    return make_plan(checkpoint.layers, Choice(mode, 32, pins=pins))


def journal_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.journal")


def whole(checkpoint: Checkpoint, plan: Plan, folder: Path) -> tuple[bytes, Compressed]:
    """Return what an uninterrupted compression writes, and says."""
    done = finish(compress(checkpoint, plan, folder / "whole.safetensors"))
    assert not journal_of(done.file).exists()
    return done.file.read_bytes(), done


# what is written


@pytest.mark.usefixtures("_small_pieces")
@in_every_mode
def test_pieces_make_the_file_that_whole_weights_make(checkpoint: Checkpoint, tmp_path: Path, mode: Mode) -> None:
    """Also experts, whose pieces begin and end within one, and what a tensor shares."""
    plan = plan_of(checkpoint, mode)
    done = finish(compress(checkpoint, plan, tmp_path / "packed.safetensors"))
    found = load_file(done.file)
    assert done.resumed == 0
    assert sum(tensor.nbytes for tensor in found.values()) == plan.compressed_bytes
    for a in plan.assignments:
        weight = a_few_weights()[a.layer.name]
        if a.scheme is None:
            assert torch.equal(found[a.layer.name], weight)
            continue
        packed = pack(round_to_nearest(weight.reshape(a.layer.matrix), a.scheme), a.scheme)
        for name, array in packed.arrays().items():
            mine = found[f"{a.layer.name}.{name}"]
            assert (mine.dtype, mine.shape) == (array.dtype, array.shape)
            assert torch.equal(mine.view(torch.uint8), array.view(torch.uint8)), (a.layer.name, name)
        moved = (packed.dequantize() - weight.reshape(a.layer.matrix).float()).double().square().sum()
        expected = relative(float(moved), float(weight.double().square().sum()))
        assert done.relative_error[a.layer.name] == pytest.approx(expected, rel=1e-3)


@in_every_mode
def test_the_slots_are_the_file_s_tensors(checkpoint: Checkpoint, tmp_path: Path, mode: Mode) -> None:
    plan = kept_too(checkpoint, mode)
    done = finish(compress(checkpoint, plan, tmp_path / "packed.safetensors"))
    header = read_header(done.file)
    promised = slots(checkpoint, plan)
    assert {name: (entry.dtype, entry.shape) for name, entry in header.items()} == {
        name: (slot.dtype, slot.shape) for name, slot in promised.items()
    }
    assert done.relative_error.keys() == {"b.0.up.weight", "b.0.experts", "head.weight"}
    assert done.mean_error == pytest.approx(sum(done.relative_error.values()) / 3)


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("mode", [Mode.NF4, Mode.NVFP4, Mode.CB4_LEARNED])
def test_progress_is_made_within_a_tensor_also_where_it_is_kept(
    checkpoint: Checkpoint, tmp_path: Path, mode: Mode
) -> None:
    steps: list[Progress] = list(compress(checkpoint, kept_too(checkpoint, mode), tmp_path / "packed"))
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == sum(layer.numel for layer in checkpoint.layers)
    assert max(b - a for a, b in itertools.pairwise([0, *done])) <= 2100
    assert {"embed.weight", "b.0.norm.weight", "b.0.experts"} < {step.detail for step in steps}


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("mode", [Mode.NVFP4, Mode.CB4_LEARNED])
def test_a_tensor_looked_at_before_it_is_rounded_can_be_stopped_there(
    checkpoint: Checkpoint, tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a step after each piece of that first pass, and the first half of the tensor's progress is its."""

    def rounded(*_: object) -> None:
        raise AssertionError("nothing was to be rounded yet")

    monkeypatch.setattr(compress_module, "quantize", rounded)
    up = checkpoint.layers[1]
    job = compress(checkpoint, make_plan([up], Choice(mode, 32)), tmp_path / "packed.safetensors")
    pieces = len(row_reader.chunks(up))
    assert pieces > 1
    done = [next(job).done for _ in range(pieces)]
    assert done == sorted(set(done))
    assert done[-1] == up.numel // 2
    job.close()


def test_a_model_without_a_weight_to_compress_has_no_error(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "model", {"norm.weight": random(64)})
    done = finish(compress(checkpoint, plan_of(checkpoint, Mode.NF4), tmp_path / "packed.safetensors"))
    assert (done.relative_error, done.mean_error) == ({}, 0)


# interrupted


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("mode", INTERRUPTED, ids=str)
def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(checkpoint: Checkpoint, tmp_path: Path, mode: Mode) -> None:
    """At every step there is: before the first tensor, within one, between two, after the last."""
    plan = kept_too(checkpoint, mode)
    expected, straight = whole(checkpoint, plan, tmp_path)
    steps = list(compress(checkpoint, plan, tmp_path / "count.safetensors"))
    file = tmp_path / "packed.safetensors"
    totals = list(itertools.accumulate(a.layer.numel for a in plan.assignments))
    for taken in range(1, len(steps) + 1):
        job = compress(checkpoint, plan, file)
        last = [next(job) for _ in range(taken)][-1]
        job.close()
        assert journal_of(file).is_file()
        again = finish(compress(checkpoint, plan, file))
        # The last tensor's own final step comes twice: within it, and once it is noted.
        least = sum(total < last.done for total in totals)
        assert least <= again.resumed <= sum(total <= last.done for total in totals)
        assert again.relative_error == straight.relative_error
        assert file.read_bytes() == expected
        assert not journal_of(file).exists()
        file.unlink()


@pytest.mark.usefixtures("_small_pieces")
def test_interrupted_at_every_tensor_in_turn_it_reads_none_twice(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(checkpoint, Mode.INT4_ASYM)
    expected, _ = whole(checkpoint, plan, tmp_path)
    reads = counted_reads(monkeypatch)
    file, finished = tmp_path / "packed.safetensors", []
    names = [a.layer.name for a in plan.assignments]
    for name, following in itertools.pairwise(names):
        job = compress(checkpoint, plan, file)
        while next(job).detail != following:
            pass
        job.close()
        finished.append(name)
        assert [json.loads(line)[0] for line in journal_of(file).read_text().splitlines()[1:]] == finished
    reads.clear()
    done = finish(compress(checkpoint, plan, file))
    assert done.resumed == len(names) - 1
    assert {name for name, *_ in reads} == {names[-1]}
    assert file.read_bytes() == expected


def test_a_job_that_was_never_begun_leaves_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    compress(checkpoint, plan_of(checkpoint, Mode.NF4), tmp_path / "packed").close()
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def half_done(checkpoint: Checkpoint, plan: Plan, file: Path) -> None:
    """Leave a file of which two tensors are finished."""
    job = compress(checkpoint, plan, file)
    while next(job).detail != plan.assignments[2].layer.name:
        pass
    job.close()


def other_plan(checkpoint: Checkpoint, plan: Plan) -> tuple[Checkpoint, Plan]:
    return checkpoint, plan_of(checkpoint, Mode.INT8_ASYM)


def other_pin(checkpoint: Checkpoint, plan: Plan) -> tuple[Checkpoint, Plan]:
    return checkpoint, make_plan(checkpoint.layers, replace(plan.choice, pins=(Pin("head", None),)))


def other_revision(checkpoint: Checkpoint, plan: Plan) -> tuple[Checkpoint, Plan]:
    weights = {name: -weight for name, weight in a_few_weights().items()}
    return saved(checkpoint.path.parent / "other", weights, revision="another"), plan


@pytest.mark.parametrize("other", [other_plan, other_pin, other_revision])
def test_another_job_in_the_same_file_starts_over(
    checkpoint: Checkpoint, tmp_path: Path, other: Callable[[Checkpoint, Plan], tuple[Checkpoint, Plan]]
) -> None:
    plan = plan_of(checkpoint, Mode.INT4_ASYM)
    file = tmp_path / "packed.safetensors"
    half_done(checkpoint, plan, file)
    model, another = other(checkpoint, plan)
    assert job_digest(model, another) != job_digest(checkpoint, plan)
    expected, _ = whole(model, another, tmp_path)
    done = finish(compress(model, another, file))
    assert done.resumed == 0
    assert file.read_bytes() == expected


def lines_of(file: Path) -> list[str]:
    return journal_of(file).read_text().splitlines()


def with_line(line: str) -> Callable[[Path], object]:
    return lambda file: journal_of(file).write_text("\n".join([*lines_of(file), line]) + "\n")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "journal_cut_in_its_head": lambda file: os.truncate(journal_of(file), 10),
    "journal_empty": lambda file: os.truncate(journal_of(file), 0),
    "journal_gone": lambda file: journal_of(file).unlink(),
    "journal_not_text": lambda file: journal_of(file).write_bytes(b"\xff\xfe\x80"),
    "journal_of_another": with_line('["foreign.weight", 0.1]'),
    "journal_with_a_word": with_line('["b.0.down.weight", "0.1"]'),
    "journal_with_nan": with_line('["b.0.down.weight", NaN]'),
    "journal_with_a_negative": with_line('["b.0.down.weight", -0.1]'),
    "journal_without_an_error": with_line('["b.0.down.weight", null]'),
    "journal_with_an_error_of_what_is_kept": with_line('["b.0.norm.weight", 0.1]'),
    "journal_with_a_list": with_line('[["b.0.down.weight"], 0.1]'),
    "journal_with_a_number": with_line("7"),
    "journal_deep": with_line("[" * 100_000 + "]" * 100_000),
    "file_gone": lambda file: file.unlink(),
    "file_cut_short": lambda file: os.truncate(file, file.stat().st_size // 4),
    "file_grown": lambda file: os.truncate(file, file.stat().st_size + 1),
    "file_empty": lambda file: os.truncate(file, 0),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_left_but_not_whole_starts_over(
    checkpoint: Checkpoint, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    plan = plan_of(checkpoint, Mode.INT4_ASYM)
    expected, _ = whole(checkpoint, plan, tmp_path)
    file = tmp_path / "packed.safetensors"
    half_done(checkpoint, plan, file)
    damage(file)
    done = finish(compress(checkpoint, plan, file))
    assert done.resumed == 0
    assert file.read_bytes() == expected
    assert not journal_of(file).exists()


def test_a_line_cut_short_costs_its_tensor_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The power may go while a line is written."""
    plan = plan_of(checkpoint, Mode.INT4_ASYM)
    expected, _ = whole(checkpoint, plan, tmp_path)
    file = tmp_path / "packed.safetensors"
    half_done(checkpoint, plan, file)
    noted = len(lines_of(file)) - 1
    os.truncate(journal_of(file), journal_of(file).stat().st_size - 5)
    done = finish(compress(checkpoint, plan, file))
    assert done.resumed == noted - 1
    assert file.read_bytes() == expected


def test_a_journal_without_its_file_is_not_believed_by_the_run_after_the_next(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is begun anew, and the program killed before it wrote its first line."""
    plan = plan_of(checkpoint, Mode.INT4_ASYM)
    expected, _ = whole(checkpoint, plan, tmp_path)
    file = tmp_path / "packed.safetensors"
    half_done(checkpoint, plan, file)
    file.unlink()

    class Killed(BaseException):
        pass

    def killed(*_: object) -> Iterator[None]:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "kept", killed)
        with pytest.raises(Killed):
            next(compress(checkpoint, plan, file))
    done = finish(compress(checkpoint, plan, file))
    assert done.resumed == 0
    assert file.read_bytes() == expected


# errors


@pytest.mark.parametrize("name", ["b.0.experts", "b.0.norm.weight"])
@pytest.mark.parametrize("begun", [False, True], ids=["at_once", "taken_up_again"])
def test_an_error_takes_file_and_journal_along(tmp_path: Path, name: str, begun: bool) -> None:
    weights = a_few_weights()
    weights[name].view(-1)[-1] = math.nan
    checkpoint = saved(tmp_path / "model", weights)
    plan = plan_of(checkpoint, Mode.INT4_SYM)
    file = tmp_path / "packed.safetensors"
    if begun:
        half_done(checkpoint, plan, file)
    with pytest.raises(CheckpointError) as caught:
        finish(compress(checkpoint, plan, file))
    assert (caught.value.key, caught.value.values) == ("not_finite", {"tensor": name})
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_source_cut_short_meanwhile_is_a_damaged_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    job = compress(checkpoint, plan_of(checkpoint, Mode.NF4), tmp_path / "packed.safetensors")
    next(job)
    os.truncate(checkpoint.path / "model.safetensors", 20_000)
    with pytest.raises(CheckpointError) as caught:
        finish(job)
    assert caught.value.key == "damaged_file"
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_digest_is_the_same_on_any_day(checkpoint: Checkpoint) -> None:
    """One for each plan: modes whose blocks do not fit give way to others, some to the same."""
    digests: set[Any] = {job_digest(checkpoint, plan_of(checkpoint, mode)) for mode in Mode}
    assert len(digests) == len({tuple(a.scheme for a in plan_of(checkpoint, mode).assignments) for mode in Mode})
    assert digests == {job_digest(checkpoint, plan_of(checkpoint, mode)) for mode in Mode}
