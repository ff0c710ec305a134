"""On CUDA a weight becomes what it becomes on the processor, bit for bit, and is measured by compiled code."""

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from studio.quantization import native
from studio.quantization.packing import pack, unpack
from studio.quantization.quantize import base_schemes, channel_error, measure, measure_in_torch, quantize
from studio.quantization.rounding import dequantize, round_to_nearest
from studio.quantization.scheme import GROUP_SIZES, Mode, Scheme
from tests import hostile

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CLOSE = 2e-6
"""Sums run in another order, nothing else differs."""
SMALLEST = 2.0**-120
"""What fp32 squares may lose."""
WEIGHTS = {
    **hostile.WEIGHTS,
    "every_fp16": hostile.constant_groups(hostile.ALL_FP16.float()),
    "large": 0.02 * torch.randn(512, 3072, generator=torch.Generator().manual_seed(1)),
    "large_bf16": torch.randn(512, 3072, generator=torch.Generator().manual_seed(2)).bfloat16(),
}
POWERS = {
    "around_six_times_powers": hostile.constant_groups(hostile.around_powers_of_two(6.0)),
    "around_448_times_powers": hostile.constant_groups(hostile.around_powers_of_two(448.0)),
}
"""Too large for the squares of fp32, so not to be measured."""


def schemes_for(width: int, mode: Mode) -> list[Scheme]:
    sizes = mode.stored_as.group_sizes
    return [Scheme(mode, size) for size in sizes if Scheme(mode, size).fits(width)]


def different(a: Tensor, b: Tensor) -> int:
    """Return how many bytes differ, whatever the dtype."""
    return int((a.contiguous().view(torch.uint8) != b.cpu().contiguous().view(torch.uint8)).sum())


@pytest.mark.parametrize("mode", [mode for mode in Mode if not mode.is_in_blocks])
@pytest.mark.parametrize("weight", (WEIGHTS | POWERS).values(), ids=(WEIGHTS | POWERS).keys())
def test_what_is_stored_is_the_same_on_cuda(weight: Tensor, mode: Mode) -> None:
    for scheme in schemes_for(weight.shape[1], mode):
        here = pack(round_to_nearest(weight, scheme), scheme)
        there = pack(round_to_nearest(weight.cuda(), scheme), scheme)
        found = there.arrays()
        assert {name: different(array, found[name]) for name, array in here.arrays().items()} == dict.fromkeys(found, 0)
        assert torch.equal(unpack(here).codes, unpack(there).codes.cpu())
        ours, theirs = dequantize(unpack(here), mode), dequantize(unpack(there), mode).cpu()
        assert torch.equal(ours.nan_to_num(7.0), theirs.nan_to_num(7.0))


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode.is_in_blocks])
def test_blocks_lose_as_much_on_cuda(mode: Mode) -> None:
    """They are fitted by least squares, whose sums run in another order there."""
    weight = WEIGHTS["large"]
    [scheme] = schemes_for(weight.shape[1], mode)
    here, there = (quantize(each, scheme).difference for each in (weight, weight.cuda()))
    assert there == pytest.approx(here, rel=1e-3)


@pytest.mark.parametrize("mode", Mode)
def test_quantize_takes_a_weight_on_cuda(mode: Mode) -> None:
    weight = WEIGHTS["large_bf16"]
    scheme = schemes_for(weight.shape[1], mode)[-1]
    here, there = quantize(weight, scheme), quantize(weight.cuda(), scheme)
    if not mode.is_in_blocks:
        assert different(here.packed.codes, there.packed.codes) == 0
    assert there.difference == pytest.approx(here.difference, rel=1e-3 if mode.is_in_blocks else 1e-5)
    assert there.square == pytest.approx(here.square, rel=1e-5)


@pytest.fixture
def triton() -> Iterator[None]:
    pytest.importorskip("triton", reason="needs Triton")
    yield
    from studio.quantization.native import cuda_survey

    assert cuda_survey._works(torch.device("cuda", 0)), "the kernel compiles here"


def assert_measured(weight: Tensor, schemes: list[Scheme]) -> None:
    """The kernel's figures are those of torch, its differences summed in double precision."""
    found = native.squared_errors(weight.cuda(), schemes)
    assert found is not None
    sums, square, worst = found
    assert set(sums) == set(schemes)
    weight = weight.float()
    for scheme in schemes:
        rounded = round_to_nearest(weight, scheme).stored(scheme.mode.stored_as.scale_dtype)
        difference = dequantize(rounded, scheme.mode) - weight
        assert_close(sums[scheme], float(difference.double().square().sum()), str(scheme))
    assert_close(square, float(weight.double().square().sum()), "square")
    backup = dequantize(round_to_nearest(weight, Scheme(Mode.INT8_ASYM)), Mode.INT8_ASYM)
    assert_close(worst, float((backup - weight).double().square().mean(1).max()), "channel error")


def assert_close(found: float, expected: float, what: str) -> None:
    if expected - expected == 0:
        assert found == pytest.approx(expected, rel=CLOSE, abs=SMALLEST), what
    else:
        assert found - found != 0, what  # not a number, or infinite: a zero times an infinite scale decides which


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_hostile_weights_are_measured_as_torch_does(weight: Tensor) -> None:
    assert_measured(weight, base_schemes(weight.shape[1], (*GROUP_SIZES, 96)))


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [1, 7, 32, 576, 1000, 4096, 14336, 28672])
def test_every_width_and_dtype(width: int, dtype: torch.dtype) -> None:
    weight = (0.02 * torch.randn(33, width, generator=torch.Generator().manual_seed(width))).to(dtype)
    assert_measured(weight, base_schemes(width, (*GROUP_SIZES, 8, 96, 192, 288, 448)))


@pytest.mark.usefixtures("triton")
def test_every_mode_the_kernel_knows_and_rows_apart() -> None:
    modes = (Mode.INT2_SYM, Mode.INT3_SYM, Mode.INT5_SYM, Mode.CB4, Mode.NF4, Mode.INT4_ASYM)
    weight = WEIGHTS["large"].cuda()[1::2, 256:2304]
    schemes = [Scheme(mode, 64) for mode in modes]
    found, expected = measure(weight, schemes), measure_in_torch(weight.contiguous(), schemes)
    assert found.differences == pytest.approx(expected.differences, rel=1e-5)
    assert found.channel_error == pytest.approx(expected.channel_error, rel=1e-5)


@pytest.mark.usefixtures("triton")
def test_modes_without_a_kernel_are_measured_by_torch() -> None:
    weight = WEIGHTS["large_bf16"].cuda()
    schemes = [Scheme(mode, mode.stored_as.group_sizes[-1]) for mode in Mode]
    found, expected = measure(weight, schemes), measure_in_torch(weight.float(), schemes)
    assert list(found.differences) == schemes
    assert found.differences == pytest.approx(expected.differences, rel=1e-5)


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_show(value: float) -> None:
    weight = WEIGHTS["large"].clone()
    weight[300, 1000] = value
    found = measure(weight.cuda(), base_schemes(3072, GROUP_SIZES))
    numbers = torch.tensor([*found.differences.values(), found.square, found.channel_error])
    assert not numbers.isfinite().any()


@pytest.mark.usefixtures("triton")
def test_the_kernel_divides_as_ieee_does() -> None:
    """Else a weight halfway between two codes could take the other one, which no sum would show."""
    from tests.division_kernel import divide_all

    count = 1 << 26
    for seed in range(8):
        random = torch.Generator("cuda").manual_seed(seed)
        top, under = (1 + torch.rand(2, count, device="cuda", generator=random)).unbind()
        exponents = torch.randint(-22, 17, (count,), device="cuda", generator=random)
        under = torch.ldexp(under, exponents) * (1 - 2 * (exponents % 2))
        top = torch.ldexp(top, exponents + torch.randint(-16, 9, (count,), device="cuda", generator=random))
        found = torch.empty_like(top)
        divide_all[(count // 1024,)](top, under, found, BLOCK=1024)
        assert int((found != top / under).sum()) == 0


def test_without_triton_torch_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "find_spec", lambda name: None)
    weight = WEIGHTS["large"].cuda()
    schemes = base_schemes(3072, GROUP_SIZES)
    assert native.squared_errors(weight, schemes) is None
    assert measure(weight, schemes).differences == pytest.approx(measure(weight.cpu(), schemes).differences, rel=1e-5)
    assert channel_error(weight) == pytest.approx(channel_error(weight.cpu()), rel=1e-5)


@pytest.mark.usefixtures("triton")
def test_where_nothing_compiles_torch_does_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from studio.quantization.native import cuda_survey

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    cuda_survey._works.cache_clear()
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(cuda_survey, "_launch", fail)
        assert native.squared_errors(WEIGHTS["large"].cuda(), []) is None
        assert channel_error(WEIGHTS["large"].cuda()) > 0
    assert "Failed to find C compiler" in caplog.text
    cuda_survey._works.cache_clear()
