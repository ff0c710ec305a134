"""Fitting blocks: never worse than gguf-py's own rounding, on any weight, and never anything but numbers."""

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from studio.quantization.ggml.blocks import BlockFormat
from studio.quantization.ggml.fit import encode, fit, nearest
from studio.quantization.methods import Method
from studio.quantization.packing import pack
from studio.quantization.rounding import Statistics, round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from tests import hostile
from tests.small import widened

FORMATS = {mode.value: mode.block_format for mode in Mode if mode.is_in_blocks}
THEIRS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
"""What gguf-py can round to itself."""
every_format = pytest.mark.parametrize("form", FORMATS.values(), ids=list(FORMATS))
on_hostile_weights = pytest.mark.parametrize("weight", hostile.WEIGHTS.values(), ids=list(hostile.WEIGHTS))
ROUNDING = 2.0**-10
"""Relative: what a scale loses in fp16, after it was found."""

SMALLEST = 2.0**-24
"""fp16's smallest step, by half of which a scale below its normal range can be off."""


def noise(rows: int = 8, width: int = 512, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def wide(weight: Tensor, form: BlockFormat) -> Tensor:
    return widened(weight.float(), Scheme.of(Mode(form.name), 32))


def error(weight: Tensor, found: Tensor, counts: Tensor | float = 1.0) -> float:
    return float((counts * (found.double() - weight.double()).square()).sum())


def theirs(weight: Tensor, form: BlockFormat) -> Tensor:
    kind = gguf.GGMLQuantizationType[form.name.upper()]
    with np.errstate(all="ignore"):
        return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind).copy())


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("counted", [False, True], ids=["alike", "weighted"])
def test_the_error_is_below_gguf_py_s(name: str, counted: bool) -> None:
    form = FORMATS[name]
    weight = 0.05 * noise()
    counts = noise(seed=1).square() if counted else torch.ones_like(weight)
    mine = form.dequantize(fit(weight, form, counts if counted else None))
    assert error(weight, mine, counts) < (0.95 if form.bits < 8 else 1.0) * error(weight, theirs(weight, form), counts)


@pytest.mark.parametrize("name", THEIRS)
@on_hostile_weights
def test_nor_is_any_block_s_above_it(name: str, weight: Tensor) -> None:
    form = FORMATS[name]
    dense = weight.float()
    other = theirs(dense, form)
    other = other.nan_to_num(torch.inf)  # where theirs overflows, any number is better
    mine = form.dequantize(fit(dense, form))
    errors = [(found.double() - dense.double()).square().reshape(-1, form.block).sum(1) for found in (mine, other)]
    lost = max(map(abs, form.levels)) * SMALLEST / 2
    slack = (ROUNDING * dense.double()).square().reshape(-1, form.block).sum(1) + form.block * lost**2
    assert (errors[0] <= errors[1] * (1 + ROUNDING) + slack).all()


@every_format
@on_hostile_weights
def test_what_is_found_is_a_number(form: BlockFormat, weight: Tensor) -> None:
    found = fit(wide(weight, form), form)
    assert form.dequantize(found).isfinite().all()
    assert int(found.codes.max()) < len(form.levels)


@every_format
@pytest.mark.parametrize("size", [1e6, 1e20, 3e38], ids="{:.0e}".format)
def test_so_it_is_of_weights_that_no_fp16_scale_reaches(form: BlockFormat, size: float) -> None:
    """As bf16 can hold them: the largest that the format has, of the same sign."""
    weight = wide(noise(2, 256).clamp(-1, 1) * size, form)
    found = form.dequantize(fit(weight, form))
    assert found.isfinite().all()


@every_format
def test_zero_stays_zero_and_a_row_of_one_value_is_near_it(form: BlockFormat) -> None:
    weight = torch.zeros(3, 256)
    weight[1], weight[2] = 0.37, -0.37
    found = form.dequantize(fit(weight, form))
    assert torch.equal(found[0], weight[0])
    assert (found - weight).abs().max() < 0.05 * 0.37


@every_format
def test_one_huge_weight_spoils_its_own_block_alone(form: BlockFormat) -> None:
    weight = 0.02 * noise(2, 1024)
    spoilt = weight.clone()
    spoilt[0, 5] = 1000.0
    found, before = (form.dequantize(fit(each, form)) for each in (spoilt, weight))
    assert torch.equal(found[:, form.block :], before[:, form.block :])
    assert found[0, 5] == pytest.approx(1000.0, rel=0.1)


@every_format
def test_what_does_not_count_is_left_to_err(form: BlockFormat) -> None:
    weight = noise(4, 512)
    counts = (torch.arange(512) % 2).float().expand(4, -1).contiguous()
    found, alike = form.dequantize(fit(weight, form, counts)), form.dequantize(fit(weight, form))
    assert found.isfinite().all()
    assert error(weight, found, counts) <= error(weight, alike, counts)


@every_format
def test_nothing_counts_and_still_there_are_numbers(form: BlockFormat) -> None:
    weight = noise(2, 256)
    assert form.dequantize(fit(weight, form, torch.zeros_like(weight))).isfinite().all()


@every_format
def test_more_starts_and_turns_never_do_worse(form: BlockFormat) -> None:
    weight = noise()
    plain, best = (fit(weight, form, ratios=(1.0,), rounds=0), fit(weight, form))
    assert error(weight, form.dequantize(best)) < error(weight, form.dequantize(plain)) * (1 + ROUNDING)


@every_format
@pytest.mark.parametrize("width", [0, 1, 31, 33, 255, 257])
def test_rows_of_no_whole_number_of_blocks_are_refused(form: BlockFormat, width: int) -> None:
    if width == 0:
        assert fit(torch.zeros(2, form.block), form).codes.shape == (2, form.block)
        return
    with pytest.raises(ValueError, match=f"{form.name} takes rows of a multiple of {form.block}, not {width}"):
        fit(torch.zeros(2, width), form)


@every_format
def test_pieces_are_rounded_as_the_whole_is(form: BlockFormat) -> None:
    weight = noise(2100, 256)  # more than are worked on at once
    whole = form.pack(fit(weight, form))
    assert torch.equal(whole, torch.cat([form.pack(fit(piece, form)) for piece in weight.split(700)]))


@every_format
def test_codes_are_the_nearest_on_their_grid(form: BlockFormat) -> None:
    weight = noise(4, 256)
    found = fit(weight, form)
    assert torch.equal(encode(weight, form, found), found.codes)
    best = error(weight, form.dequantize(found))
    for step in (-1, 1):
        codes = (found.codes.int() + step).clamp(0, len(form.levels) - 1).to(torch.uint8)
        assert error(weight, form.dequantize(found.with_codes(codes))) >= best


@every_format
def test_each_level_is_its_own_nearest(form: BlockFormat) -> None:
    values = torch.tensor(form.levels).reshape(1, 1, -1)
    assert nearest(form, values, torch.ones(1, 1, 1), None).flatten().tolist() == list(range(len(form.levels)))


@every_format
def test_gptq_moves_the_output_less(form: BlockFormat) -> None:
    width, generator = 256, torch.Generator().manual_seed(1)
    mixed = torch.randn(400, width, generator=generator) @ torch.randn(width, width, generator=generator)
    weight, scheme = 0.05 * noise(24, width), Scheme.of(Mode(form.name), 32)
    calibrated = Method.GPTQ.calibrated
    assert calibrated is not None
    found = calibrated(weight, scheme, Statistics(mixed.T @ mixed / 400, 400))
    errors = [
        float((mixed @ (pack(each, scheme).dequantize() - weight).T).square().sum())
        for each in (found, round_to_nearest(weight, scheme))
    ]
    assert errors[0] < 0.9 * errors[1]
