"""E2M1 and its scales: sixteen codes for fifteen numbers, halfway to the even, powers of two that hold the largest."""

import pytest
import torch

from studio.quantization.rounding.float4 import MAGNITUDES, MXFP4, NVFP4, decode, encode


def test_every_code_stands_for_its_number_and_comes_back() -> None:
    codes = torch.arange(16, dtype=torch.uint8)
    numbers = decode(codes)
    assert numbers.tolist() == [*MAGNITUDES, *(-each for each in MAGNITUDES)]
    assert torch.equal(encode(numbers).to(torch.uint8), codes)  # minus zero too


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0.25, 0.0), (0.75, 1.0), (1.25, 1.0), (1.75, 2.0), (2.5, 2.0), (3.5, 4.0), (5.0, 4.0), (5.1, 6.0), (100.0, 6.0)],
)
def test_the_nearest_is_taken_and_halfway_the_one_of_even_mantissa(number: float, expected: float) -> None:
    assert decode(encode(torch.tensor([number, -number])).to(torch.uint8)).tolist() == [expected, -expected]


def test_scales_of_mxfp4_are_powers_of_two_that_lose_no_largest_weight() -> None:
    grouped = torch.randn(8, 4, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    _, scale, _ = MXFP4.round(grouped, None)
    assert torch.equal(scale.log2(), scale.log2().round())
    assert bool((6 * scale >= grouped.abs().amax(2)).all())


def test_scales_of_nvfp4_are_e4m3s_share_of_one_number() -> None:
    grouped = torch.randn(8, 4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    assert NVFP4.fit is not None
    fit = NVFP4.fit()
    fit.add(grouped)
    _, share, _ = NVFP4.round(grouped, fit.result())
    assert torch.equal(share.to(torch.float8_e4m3fn).float(), share)
    assert float(share.max()) == 448
