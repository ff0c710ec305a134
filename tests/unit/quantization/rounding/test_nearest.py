"""Rounding to nearest is NNCF's, bit for bit, on friendly and on hostile weights.

The yardstick below is written from NNCF's formulas alone, in numpy's fp32, one group at a time.
"""

from statistics import NormalDist

import numpy as np
import pytest
import torch

from studio.quantization.rounding import NF4_LEVELS, dequantize, round_to_nearest
from studio.quantization.rounding.levels import CB4_LEVELS
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import Mode, Scheme
from tests import hostile

SCHEMES = [Scheme(mode, group) for mode in Mode for group in mode.stored_as.group_sizes if group in (-1, 16, 32)]
ROWS, WIDTH = 4, 96
SMALLEST_SCALE = np.float32(2**-23)
WEIGHTS = {name: weight[:ROWS, :WIDTH].float() for name, weight in hostile.WEIGHTS.items()}
on_hostile_weights = pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS.keys())


def e2m1(code: int) -> float:
    """The 4-bit float of this code, by its definition: sign, two bits of exponent (bias 1), one of mantissa."""
    exponent, mantissa = code >> 1 & 3, code & 1
    size = mantissa / 2 if exponent == 0 else 2.0 ** (exponent - 1) * (1 + mantissa / 2)
    return -size if code & 8 else size


def e4m3(code: int) -> float:
    """The 8-bit float of this code: sign, four bits of exponent (bias 7), three of mantissa; 0x7F is no number."""
    exponent, mantissa = code >> 3 & 15, code & 7
    size = mantissa / 8 * 2.0**-6 if exponent == 0 else 2.0 ** (exponent - 7) * (1 + mantissa / 8)
    return -size if code & 0x80 else size


E2M1, E4M3 = np.array([e2m1(code) for code in range(8)]), np.array([e4m3(code) for code in range(0x7F)])
LEVELS = {Mode.NF4: (NF4_LEVELS, 1.0), Mode.CB4: (CB4_LEVELS, 3.5)}
FLOATS = {
    Mode.FP4: (E2M1, 8),
    Mode.MXFP4: (E2M1, 8),
    Mode.NVFP4: (E2M1, 8),
    Mode.FP8_E4M3: (E4M3, 128),
    Mode.MXFP8_E4M3: (E4M3, 128),
}


def nearest_float(normal: np.ndarray, magnitudes: np.ndarray, sign: int) -> np.ndarray:
    """Return the codes of the nearest numbers, halfway to the even one; in fp16 first where they have 8 bits."""
    if sign == 128:
        normal = normal.astype(np.float16)
    distances = np.abs(np.abs(normal).astype(np.float64)[:, None] - magnitudes)
    is_odd = np.arange(len(magnitudes)) % 2
    order: np.ndarray = np.lexsort((np.broadcast_to(is_odd, distances.shape), distances))
    codes: np.ndarray = order[:, 0] + sign * np.signbit(normal)
    return codes


def nncf(group: np.ndarray, mode: Mode) -> tuple[np.ndarray, np.float32, int | None]:
    """Return codes as stored, fp32 scale and zero point of one group of fp32 weights."""
    low, high, largest = group.min(), group.max(), np.abs(group).max()
    if mode in LEVELS:
        levels, highest = LEVELS[mode]
        scale = max(largest / np.float32(highest), SMALLEST_SCALE)
        distances = np.abs((group / scale).astype(np.float64)[:, None] - np.array(levels))
        return distances.argmin(axis=1), scale, None
    if mode in FLOATS:
        magnitudes, sign = FLOATS[mode]
        scale = max(largest, SMALLEST_SCALE) / np.float32(magnitudes[-1])
        if mode.stored_as.scale_dtype == "F8_E8M0":
            scale = np.float32(2.0 ** np.ceil(np.float32(np.log(np.float64(scale))) * np.float32(1 / np.log(2))))
        return nearest_float(group / scale, magnitudes, sign), scale, None
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


def nvfp4_scales(weight: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Return NVFP4's E4M3 scales as numbers, and the fp32 one that they share."""
    share = max(scales.max(), SMALLEST_SCALE) / np.float32(448)
    codes = nearest_float((scales / share).flatten(), E4M3, 128)
    return E4M3[codes].reshape(scales.shape), share


INTEGERS = {mode for mode in Mode if mode.grid.codes in (Codes.SYMMETRIC, Codes.ASYMMETRIC)}


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.mode in {*LEVELS, *FLOATS, *INTEGERS}], ids=str)
@on_hostile_weights
def test_codes_scales_and_zero_points_are_those_of_nncf(weight: torch.Tensor, scheme: Scheme) -> None:
    rounded = round_to_nearest(weight, scheme)
    groups = scheme.groups(WIDTH)
    codes = rounded.codes.reshape(ROWS, groups, -1)
    scales = np.empty((ROWS, groups), dtype=np.float32)
    for row in range(ROWS):
        for index, group in enumerate(np.split(weight[row].numpy(), groups)):
            expected, scales[row, index], zero_point = nncf(group, scheme.mode)
            assert codes[row, index].tolist() == expected.astype(int).tolist()
            assert zero_point == (None if rounded.zero_point is None else rounded.zero_point[row, index].item())
    if scheme.mode is Mode.NVFP4:
        scales, share = nvfp4_scales(weight.numpy(), scales)
        assert rounded.tensor_params is not None
        assert rounded.tensor_params.tolist() == [share]
    assert rounded.scale.tolist() == scales.tolist()


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
        (Mode.INT5_SYM, [-16.0, -1.0, 0.0, 15.0], [0, 15, 16, 31], 1.0, None),
        (Mode.INT3_SYM, [-4.0, -1.0, 0.0, 3.0], [0, 3, 4, 7], 1.0, None),
        (Mode.INT3_SYM, [4.0, 1.0, 0.0, -3.0], [0, 3, 4, 7], -1.0, None),
        (Mode.INT2_SYM, [-2.0, -1.0, 0.0, 1.0], [0, 1, 2, 3], 1.0, None),
        (Mode.NF4, [-2.0, 0.0, 2.0, 0.17], [0, 7, 15, 8], 2.0, None),
        (Mode.CB4, [-7.0, 0.0, 7.0, 0.5], [0, 7, 15, 8], 2.0, None),
        (Mode.FP4, [12.0, -1.0, 0.0, -12.0], [7, 9, 0, 15], 2.0, None),
        (Mode.FP4, [6.0, 5.0, 3.5, 2.5], [7, 6, 6, 4], 1.0, None),  # halfway: to the even mantissa
        (Mode.FP4, [6.0, 0.25, 0.75, -0.25], [7, 0, 2, 8], 1.0, None),
        (Mode.FP8_E4M3, [448.0, 1.0, -1.0, 0.0], [0x7E, 0x38, 0xB8, 0], 1.0, None),
        (Mode.FP8_E4M3, [448.0, 2.0**-9, 2.0**-10, 1.0625], [0x7E, 1, 0, 0x38], 1.0, None),
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


@pytest.mark.parametrize(
    ("mode", "largest", "scale", "code"),
    # the smallest power of two that keeps the largest weight within 6 or 448
    [
        *((Mode.MXFP4, 6.0, 1.0, 7), (Mode.MXFP4, 6.01, 2.0, 5), (Mode.MXFP4, 3.0, 0.5, 7), (Mode.MXFP4, 4.0, 1.0, 6)),
        *(
            (Mode.MXFP8_E4M3, 448.0, 1.0, 0x7E),
            (Mode.MXFP8_E4M3, 449.0, 2.0, 0x76),
            (Mode.MXFP8_E4M3, 1.0, 2**-8, 0x78),
        ),
    ],
)
def test_mx_scales_worked_by_hand(mode: Mode, largest: float, scale: float, code: int) -> None:
    weight = torch.zeros(1, 32)
    weight[0, 3] = largest
    rounded = round_to_nearest(weight, Scheme(mode, 32))
    assert rounded.scale.tolist() == [[scale]]
    assert rounded.codes[0, 3].item() == code
    assert rounded.codes.count_nonzero() == 1


def test_nvfp4_worked_by_hand() -> None:
    """The group with the largest weight has E4M3's largest number as its scale; the other one its share of that."""
    weight = torch.zeros(1, 32)
    weight[0, 0], weight[0, 16] = 6 * 448.0, 6.0
    rounded = round_to_nearest(weight, Scheme(Mode.NVFP4, 16))
    assert rounded.tensor_params is not None
    assert rounded.tensor_params.tolist() == [1.0]
    assert rounded.scale.tolist() == [[448.0, 1.0]]
    assert rounded.codes[0, [0, 16]].tolist() == [7, 7]
    assert torch.equal(dequantize(rounded, Mode.NVFP4), weight)


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
