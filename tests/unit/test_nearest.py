"""Rounding to nearest is NNCF's, bit for bit, on friendly and on hostile weights.

The yardstick below is written from NNCF's formulas alone, in numpy's fp32, one group at a time.
"""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from studio.rounding import NF4_LEVELS, dequantize, round_to_nearest
from studio.scheme import Mode, Scheme

SCHEMES = [
    Scheme.parse(name)
    for name in ("int8_sym", "int8_asym", "int4_sym-g32", "int4_asym-g32", "int4_sym-gall", "int4_asym-gall", "nf4-g32")
]
ROWS, WIDTH = 4, 96
SMALLEST_SCALE = np.float32(2**-23)
FP16_MAX = 65504.0


def noise(seed: int = 0) -> torch.Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(seed))


def with_outlier(value: float) -> torch.Tensor:
    weight = 0.02 * noise()
    weight[:, 5] = value
    return weight


def cycled(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).repeat(ROWS * WIDTH // len(values)).reshape(ROWS, WIDTH)


WEIGHTS = {
    "normal": noise(),
    "from_bf16": noise(1).bfloat16().float(),
    "all_zero": torch.zeros(ROWS, WIDTH),
    "minus_zero": -torch.zeros(ROWS, WIDTH),
    "one_outlier": with_outlier(30.0),
    "one_negative_outlier": with_outlier(-30.0),
    "constant": torch.full((ROWS, WIDTH), 0.37),
    "negative_constant": torch.full((ROWS, WIDTH), -0.37),
    "constant_rows": torch.tensor([[1.0], [-2.0], [0.0], [1e-3]]).expand(ROWS, WIDTH).contiguous(),
    "negative_only": -noise().abs() - 0.5,
    "positive_only": noise().abs() + 0.5,
    "as_large_both_ways": cycled([-1.0, 1.0, 0.3, -0.2]),
    "halfway_between_codes": cycled([-8.0, -7.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 6.5, 7.0, 0.0]),
    "subnormal": noise() * 1e-40,
    "around_the_smallest_scale": noise() * 2**-22,
    "fp16_max": cycled([FP16_MAX, -FP16_MAX, 1.0, 0.0]),
    "fp16_max_one_sided": cycled([FP16_MAX, 0.5 * FP16_MAX, 1.0]),
}
on_hostile_weights = pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS.keys())
in_every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


def nncf(group: np.ndarray, mode: Mode) -> tuple[np.ndarray, np.float32, int | None]:
    """Return codes as stored, fp32 scale and zero point of one group of fp32 weights."""
    low, high = group.min(), group.max()
    if mode is Mode.NF4:
        scale = max(np.abs(group).max(), SMALLEST_SCALE)
        distances = np.abs((group / scale).astype(np.float64)[:, None] - np.array(NF4_LEVELS))
        return distances.argmin(axis=1), scale, None
    if mode.has_zero_point:
        top = np.float32(2**mode.bits - 1)
        low, high = min(low, np.float32(0)), max(high, np.float32(0))
        scale = max((high - low) / top, SMALLEST_SCALE)
        zero_point = np.clip(0 - np.round(low / scale), 0, top)
        return np.clip(np.round(group / scale + zero_point), 0, top), scale, int(zero_point)
    half = np.float32(2 ** (mode.bits - 1))
    scale = np.abs(low) / half if np.abs(low) >= high else -high / half
    scale = SMALLEST_SCALE if np.abs(scale) < SMALLEST_SCALE else scale
    return np.clip(np.round(group / scale), -half, half - 1) + half, scale, None


@in_every_scheme
@on_hostile_weights
def test_codes_scales_and_zero_points_are_those_of_nncf(weight: torch.Tensor, scheme: Scheme) -> None:
    rounded = round_to_nearest(weight, scheme)
    groups = scheme.groups(WIDTH)
    codes = rounded.codes.reshape(ROWS, groups, -1)
    for row in range(ROWS):
        for index, group in enumerate(np.split(weight[row].numpy(), groups)):
            expected, scale, zero_point = nncf(group, scheme.mode)
            assert codes[row, index].tolist() == expected.astype(int).tolist()
            assert rounded.scale[row, index].item() == float(scale)
            assert zero_point == (None if rounded.zero_point is None else rounded.zero_point[row, index].item())


@in_every_scheme
@on_hostile_weights
def test_what_is_stored_is_finite(weight: torch.Tensor, scheme: Scheme) -> None:
    stored = round_to_nearest(weight, scheme).stored()
    assert stored.scale.dtype is torch.float16
    assert torch.isfinite(dequantize(stored, scheme.mode)).all()
    assert (stored.scale != 0).all()


@pytest.mark.parametrize(
    ("mode", "weights", "codes", "scale", "zero_point"),
    [
        (Mode.INT4_SYM, [-8.0, -1.0, 0.0, 7.0], [0, 7, 8, 15], 1.0, None),
        (Mode.INT4_SYM, [8.0, 1.0, 0.0, -7.0], [0, 7, 8, 15], -1.0, None),
        (Mode.INT4_SYM, [-4.0, 4.0, 1.0, 0.0], [0, 15, 10, 8], 0.5, None),
        (Mode.INT4_ASYM, [0.0, 1.0, 7.0, 15.0], [0, 1, 7, 15], 1.0, 0),
        (Mode.INT4_ASYM, [-5.0, 0.0, 1.0, 10.0], [0, 5, 6, 15], 1.0, 5),
        (Mode.INT4_ASYM, [3.0, 4.0, 9.0, 15.0], [3, 4, 9, 15], 1.0, 0),
        (Mode.INT4_ASYM, [-3.0, -4.0, -9.0, -15.0], [12, 11, 6, 0], 1.0, 15),
        (Mode.INT8_SYM, [-2.0, -1.0, 0.0, 1.0], [0, 64, 128, 192], 2 / 128, None),
        (Mode.INT8_ASYM, [-100.0, 0.0, 55.0, 155.0], [0, 100, 155, 255], 1.0, 100),
        (Mode.NF4, [-2.0, 0.0, 2.0, 0.17], [0, 7, 15, 8], 2.0, None),
    ],
    ids=lambda value: value.value if isinstance(value, Mode) else None,
)
def test_worked_by_hand(
    mode: Mode, weights: list[float], codes: list[int], scale: float, zero_point: int | None
) -> None:
    rounded = round_to_nearest(torch.tensor([weights]), Scheme(mode))
    assert rounded.codes.tolist() == [codes]
    assert rounded.scale.tolist() == [[scale]]
    assert (None if rounded.zero_point is None else rounded.zero_point.item()) == zero_point


@pytest.mark.parametrize("name", ["one_outlier", "one_negative_outlier", "normal", "fp16_max_one_sided"])
def test_the_extreme_weight_of_int4_sym_becomes_minus_8(name: str) -> None:
    weight = WEIGHTS[name]
    rounded = round_to_nearest(weight, Scheme(Mode.INT4_SYM))
    extreme = weight.abs().argmax(dim=1, keepdim=True)
    assert (rounded.codes.gather(1, extreme) == 0).all(), "-8 is stored as 0"
    kept = dequantize(rounded, Mode.INT4_SYM).gather(1, extreme)
    assert torch.equal(kept, weight.gather(1, extreme)), "an eighth of it times -8 is exact"


@in_every_scheme
@pytest.mark.parametrize("shift", [-10.0, -0.1, 0.0, 0.1, 10.0], ids="shift{}".format)
def test_zero_stays_exactly_zero(scheme: Scheme, shift: float) -> None:
    weight = noise() + shift
    weight[:, ::7] = 0
    assert (dequantize(round_to_nearest(weight, scheme).stored(), scheme.mode)[:, ::7] == 0).all()


def test_nf4_picks_the_nearest_of_its_16_levels() -> None:
    weight = torch.linspace(-1, 1, 20_001).reshape(1, -1)
    chosen = dequantize(round_to_nearest(weight, Scheme(Mode.NF4)), Mode.NF4).double()
    nearest = (weight.double().T - torch.tensor(NF4_LEVELS).double()).abs().amin(dim=1)
    assert torch.allclose((weight.double() - chosen).abs().flatten(), nearest, rtol=0, atol=1e-7)
    assert len(chosen.unique()) == 16


def test_nf4_levels_are_quantiles_of_the_normal_distribution() -> None:
    """QLoRA's construction: 8 quantiles above zero, 7 below, zero itself, all over the largest."""
    quantile, outermost = NormalDist().inv_cdf, 0.9677083
    above = [quantile(p) for p in np.linspace(outermost, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(outermost, 0.5, 8)[:-1]]
    expected = sorted(value / above[0] for value in (*below, 0.0, *above))
    assert pytest.approx(expected, abs=1e-6) == list(NF4_LEVELS)


@in_every_scheme
def test_groups_do_not_see_each_other(scheme: Scheme) -> None:
    """Also: groups run along the input channels, never across rows."""
    weight = noise(2)
    groups = scheme.groups(WIDTH)
    whole = round_to_nearest(weight, scheme).codes.reshape(ROWS, groups, -1)
    alone = Scheme(scheme.mode)
    for row in range(ROWS):
        for index, group in enumerate(weight[row].chunk(groups)):
            assert torch.equal(round_to_nearest(group.reshape(1, -1), alone).codes.flatten(), whole[row, index])


@in_every_scheme
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_any_float_dtype_is_read_as_fp32(scheme: Scheme, dtype: torch.dtype) -> None:
    weight = noise(3).to(dtype)
    assert torch.equal(round_to_nearest(weight, scheme).codes, round_to_nearest(weight.float(), scheme).codes)


@in_every_scheme
def test_the_weight_itself_is_left_alone_and_may_be_a_view(scheme: Scheme) -> None:
    stored = noise(4).T.contiguous()
    before = stored.clone()
    of_view = round_to_nearest(stored.T, scheme)
    assert torch.equal(stored, before)
    assert torch.equal(of_view.codes, round_to_nearest(before.T.contiguous(), scheme).codes)


@pytest.mark.parametrize(
    ("scheme", "most"),
    # uniform noise of 2^b steps errs by 1/sqrt(12) of a step; a normal row of 96 spans about 5 sigma
    [("int8_asym", 0.01), ("int8_sym", 0.01), ("int4_asym-g32", 0.1), ("int4_sym-g32", 0.12), ("nf4-g32", 0.1)],
)
def test_the_error_on_normal_weights_is_that_of_the_bits(scheme: str, most: float) -> None:
    weight, parsed = noise(5), Scheme.parse(scheme)
    error = (dequantize(round_to_nearest(weight, parsed).stored(), parsed.mode) - weight).norm() / weight.norm()
    assert most / 4 < error < most
    assert math.isfinite(error)
