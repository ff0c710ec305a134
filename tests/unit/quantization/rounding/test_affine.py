"""Integers with an offset: the line of least squares through codes and weights, in numbers that fp16 holds."""

import numpy as np
import pytest
import torch
from torch import Tensor

from studio.quantization.methods import Method
from studio.quantization.packing import pack
from studio.quantization.rounding import QuantizedWeight, Statistics, dequantize, round_to_nearest
from studio.quantization.rounding.affine import as_blocks, best_line, form_of, from_blocks
from studio.quantization.rounding.least_squares import least_squares
from studio.quantization.scheme import Mode, Scheme
from tests import hostile

MODES = [mode for mode in Mode if mode.stored_as.has_offset]
every_mode = pytest.mark.parametrize("mode", MODES, ids=str)
ROUNDED, LEAST = 2.0**-11, 2.0**-25
"""What fp16 errs by: relative, and below its normal range."""


def weight(rows: int = 24, width: int = 256) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0)) * 0.05 + 0.01


def inputs() -> Statistics:
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(400, 256, generator=generator) @ torch.randn(256, 256, generator=generator)
    given = mixed * torch.logspace(-1, 1, 256)[torch.randperm(256, generator=generator)]
    return Statistics(given.T @ given / len(given), len(given))


def test_the_modes_are_those_of_mlx() -> None:
    assert sorted(mode.bits for mode in MODES) == [2, 3, 4, 5, 6, 8]
    assert {mode.stored_as.scale_dtype for mode in MODES} == {"F16"}
    assert {str(mode.default_backup) for mode in MODES} == {"int8_affine"}


@pytest.mark.parametrize(
    ("weights", "codes", "scale", "offset"),
    [
        ([1.0, 2.0, 7.0, 16.0], [0, 1, 6, 15], 1.0, 1.0),
        ([-5.0, 0.0, 1.0, 10.0], [0, 5, 6, 15], 1.0, -5.0),
        ([-1.0, -1.5, -8.5, -2.0], [15, 14, 0, 13], 0.5, -8.5),
        ([0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0], 2.0**-23, 0.0),
        ([0.25, 0.25, 0.25, 0.25], [0, 0, 0, 0], 2.0**-23, 0.25),
    ],
    ids=str,
)
def test_nearest_worked_by_hand(weights: list[float], codes: list[int], scale: float, offset: float) -> None:
    rounded = round_to_nearest(torch.tensor([weights]), Scheme(Mode.INT4_AFFINE))
    assert rounded.codes.tolist() == [codes]
    assert rounded.scale.tolist() == [[scale]]
    assert rounded.offset is not None
    assert rounded.offset.tolist() == [[offset]]


@every_mode
@pytest.mark.parametrize("method", [Method.NEAREST, Method.HALF_QUADRATIC, Method.LEAST_SQUARES, Method.FISHER_GPTQ])
def test_what_is_found_is_what_fp16_holds(mode: Mode, method: Method) -> None:
    """So that codes are those of the numbers that a file has, and nothing is rounded after them."""
    scheme, calibrated = Scheme(mode, 64), method.calibrated
    found = method.data_free(weight(), scheme, None) if calibrated is None else calibrated(weight(), scheme, inputs())
    assert found.offset is not None
    for numbers in (found.scale, found.offset):
        assert torch.equal(numbers, numbers.half().float())
    assert torch.equal(pack(found, scheme).dequantize(), dequantize(found, mode))


@every_mode
@pytest.mark.parametrize("name", hostile.WEIGHTS)
def test_nearest_errs_by_half_a_step(mode: Mode, name: str) -> None:
    given = hostile.WEIGHTS[name].float()
    if given.abs().max() > 30000:
        given = given / 4  # twice fp16's largest is no range of fp16
    rounded = round_to_nearest(given, Scheme(mode, 64))
    assert rounded.offset is not None
    # and by what fp16 errs in an offset, and in a scale that is counted up to 255 times
    off = ROUNDED * rounded.offset.abs() + LEAST + (2**mode.bits - 1) * (ROUNDED * rounded.scale + LEAST)
    bound = (0.5 * (1 + ROUNDED) * rounded.scale + off).repeat_interleave(64, 1)
    assert ((dequantize(rounded, mode) - given).abs() <= bound).all()


@every_mode
def test_weights_beyond_fp16_stay_finite(mode: Mode) -> None:
    given = weight() * 1e7
    for found in (round_to_nearest(given, Scheme(mode, 64)), least_squares(given, Scheme(mode, 64))):
        assert dequantize(found, mode).isfinite().all()


def test_the_line_is_that_of_numpy_through_the_same_codes() -> None:
    generator = torch.Generator().manual_seed(3)
    weights, counts = (torch.rand(5, 3, 32, generator=generator, dtype=torch.float32) for _ in range(2))
    codes, scale, offset = best_line(weights, counts, 4, (1.0,), 40)  # turns until nothing changes
    for row in range(5):
        for group in range(3):
            q, w = codes[row, group].double().numpy(), weights[row, group].double().numpy()
            slope, start = np.polyfit(q, w, 1, w=counts[row, group].double().sqrt().numpy())
            assert float(scale[row, group]) == pytest.approx(slope, rel=2**-10)
            assert float(offset[row, group]) == pytest.approx(start, abs=2**-10 * 15 * slope)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_fitted_numbers_leave_less_than_the_ends_of_the_range(bits: int) -> None:
    """The finer the grid, the less there is to win."""
    scheme = Scheme(Mode(f"int{bits}_affine"), 64)
    fitted, nearest = (
        float((dequantize(r, scheme.mode) - weight()).square().sum())
        for r in (least_squares(weight(), scheme), round_to_nearest(weight(), scheme))
    )
    assert fitted < {2: 0.6, 3: 0.8, 4: 0.92, 5: 0.97, 6: 0.99, 8: 1.0}[bits] * nearest


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.FISHER_GPTQ])
def test_an_offset_is_worth_more_than_a_whole_zero_point(method: Method) -> None:
    """On what weights are for, their outputs, where both are fitted."""
    known = inputs()

    def error(mode: Mode) -> float:
        scheme, calibrated = Scheme(mode, 64), method.calibrated
        found = method.data_free(weight(), scheme, None) if calibrated is None else calibrated(weight(), scheme, known)
        moved = pack(found, scheme).dequantize() - weight()
        return float(((moved @ known.hessian) * moved).sum())

    assert error(Mode.INT4_AFFINE) < 0.95 * error(Mode.INT4_ASYM)


def test_groups_are_blocks_and_back() -> None:
    scheme = Scheme(Mode.INT4_AFFINE, 64)
    found = round_to_nearest(weight(), scheme)
    blocks = as_blocks(found)
    assert torch.equal(form_of(scheme, 256).dequantize(blocks), dequantize(found, scheme.mode))
    back = from_blocks(blocks)
    assert all(torch.equal(a, b) for a, b in ((back.codes, found.codes), (back.scale, found.scale)))
    with pytest.raises(ValueError, match="without offsets"):
        as_blocks(QuantizedWeight(found.codes, found.scale, None))
