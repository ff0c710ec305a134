"""The compiled twin gives what torch gives: the same bits where it packs, the same sums where it measures."""

import math
import shutil
from collections.abc import Collection

import pytest
import torch
from torch import Tensor

from studio.base.compiler import library
from studio.quantization.native import channel_error, pack_nearest, squared_errors
from studio.quantization.native.round_to_nearest import SOURCE, measures, packs
from studio.quantization.packing import pack
from studio.quantization.rounding import dequantize, round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from tests import hostile

if shutil.which("cc") is None:
    pytest.skip("no compiler", allow_module_level=True)


KINDS = {mode for mode in Mode if packs(mode)}
MEASURED = {mode for mode in Mode if measures(mode)}


def schemes_of(modes: Collection[Mode], width: int, sizes: tuple[int, ...] = (-1, 16, 32, 64, 11)) -> list[Scheme]:
    """Return every scheme of these modes whose groups divide ``width``."""
    found = [
        Scheme.of(mode, size) for mode in Mode if mode in modes for size in (sizes if mode.is_grouped else sizes[:1])
    ]
    return [scheme for scheme in found if scheme.fits(width)]


def finite(weight: Tensor) -> Tensor:
    return torch.where(weight.isfinite(), weight, 0)


HOSTILE = {name: finite(weight) for name, weight in hostile.WEIGHTS.items()}
SHAPES = ((1, 1), (1, 31), (3, 33), (1, 256), (5, 96), (7, 110), (129, 64), (200, 48), (2, 1000))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
with_hostile_weights = pytest.mark.parametrize("weight", HOSTILE.values(), ids=HOSTILE.keys())
of_any_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
of_any_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def differences(weight: Tensor, scheme: Scheme) -> float:
    """Return ‖W - Ŵ‖² as torch finds it."""
    rounded = round_to_nearest(weight, scheme).stored(scheme.mode.stored_as.scale_dtype)
    return float((dequantize(rounded, scheme.mode) - weight.float()).square().double().sum())


def square_of(weight: Tensor) -> float:
    return float(weight.float().square().double().sum())


def about(expected: float, weight: Tensor) -> object:
    return pytest.approx(expected, rel=1e-4, abs=1e-12 * square_of(weight), nan_ok=True)


def assert_packed_alike(weight: Tensor, scheme: Scheme) -> None:
    found = pack_nearest(weight, scheme)
    assert found is not None
    packed, difference, square = found
    expected = pack(round_to_nearest(weight, scheme), scheme)
    assert packed.arrays().keys() == expected.arrays().keys()
    for name, array in expected.arrays().items():
        mine = packed.arrays()[name]
        assert (mine.dtype, mine.shape) == (array.dtype, array.shape), name
        assert torch.equal(mine.view(torch.uint8), array.view(torch.uint8)), (name, scheme)
    assert difference == about(differences(weight, scheme), weight)
    assert square == pytest.approx(square_of(weight), rel=1e-4)


def assert_measured_alike(weight: Tensor, schemes: list[Scheme]) -> None:
    found = squared_errors(weight, schemes)
    assert found is not None
    sums, square, worst = found
    assert list(sums) == schemes
    for scheme, difference in sums.items():
        assert difference == about(differences(weight, scheme), weight), scheme
    assert square == pytest.approx(square_of(weight), rel=1e-4)
    exact = dequantize(round_to_nearest(weight, Scheme(Mode.INT8_ASYM)), Mode.INT8_ASYM) - weight.float()
    largest = float(exact.square().double().mean(1).max())
    assert worst == about(largest, weight)
    assert channel_error(weight) == worst


@with_hostile_weights
@of_any_dtype
def test_hostile_weights_are_packed_and_measured_as_torch_does(weight: Tensor, dtype: torch.dtype) -> None:
    weight = finite(weight.to(dtype))[:40]
    for scheme in schemes_of(KINDS, weight.shape[1]):
        assert_packed_alike(weight, scheme)
    assert_measured_alike(weight, schemes_of(MEASURED, weight.shape[1]))


@of_any_shape
@of_any_dtype
def test_any_shape_is_packed_and_measured_as_torch_does(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)
    for scheme in schemes_of(KINDS, shape[1]):
        assert_packed_alike(weight, scheme)
    assert_measured_alike(weight, schemes_of(MEASURED, shape[1]))


@of_any_dtype
def test_rows_that_do_not_follow_on_each_other_are_found(dtype: torch.dtype) -> None:
    """Columns of a wider tensor, every second row, and one row over and over."""
    wide = torch.randn(260, 80, generator=torch.Generator().manual_seed(3)).to(dtype)
    for weight in (wide[:, 5:69], wide[::2, :64], wide[1:2, :64].expand(130, 64)):
        assert not weight.is_contiguous()
        for scheme in schemes_of(KINDS, 64):
            assert_packed_alike(weight, scheme)
        assert_measured_alike(weight, schemes_of(MEASURED, 64))


@pytest.mark.parametrize(
    "weight", [torch.zeros(64, 32).T, torch.zeros(4, 32).double(), torch.zeros(0, 32)], ids=["columns", "fp64", "empty"]
)
def test_what_the_twin_does_not_take_is_left_to_torch(weight: Tensor) -> None:
    assert pack_nearest(weight, Scheme(Mode.INT8_ASYM)) is None
    assert squared_errors(weight, [Scheme(Mode.INT8_ASYM)]) is None
    assert channel_error(weight) is None


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode not in KINDS], ids=str)
def test_a_mode_the_twin_does_not_pack_is_left_to_torch(mode: Mode) -> None:
    assert pack_nearest(torch.zeros(4, 32), Scheme.of(mode, 32)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("row", [0, 70, 199], ids="row{}".format)
@pytest.mark.parametrize("column", [0, 17, 63], ids="column{}".format)
@of_any_dtype
def test_a_number_that_is_none_is_seen_wherever_it_stands(
    value: float, row: int, column: int, dtype: torch.dtype
) -> None:
    """In any row, of any thread, before and after rows that are sound."""
    weight = torch.randn(200, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight[row, column] = value
    for scheme in schemes_of(KINDS, 64):
        found = pack_nearest(weight, scheme)
        assert found is not None
        assert not math.isfinite(found[1]), scheme
        assert not math.isfinite(found[2]), scheme
    measured = squared_errors(weight, schemes_of(MEASURED, 64))
    assert measured is not None
    sums, square, worst = measured
    assert not any(math.isfinite(number) for number in (*sums.values(), square, worst))
    score = channel_error(weight)
    assert score is not None
    assert not math.isfinite(score)


def test_a_scale_beyond_fp16_is_no_finite_error() -> None:
    weight = torch.full((3, 32), 3e38)
    weight[:, 0] = -3e38
    for scheme in schemes_of(KINDS, 32):
        found = pack_nearest(weight, scheme)
        assert found is not None
        assert not math.isfinite(found[1])


def test_the_library_is_there() -> None:
    """Else every test above would have failed, and for another reason."""
    assert library(SOURCE) is not None
