"""E4M3: a code is the number's own bits."""

import torch

from studio.quantization.rounding.float8 import FP8, MAX, MXFP8, decode, encode

ALL = torch.arange(256, dtype=torch.uint8)


def test_every_number_is_its_own_code() -> None:
    numbers = decode(ALL)
    finite = numbers.isfinite()
    assert int(finite.sum()) == 254  # two are NaN
    assert torch.equal(encode(numbers[finite]), ALL[finite])
    assert float(numbers[finite].max()) == MAX


def test_a_scale_takes_the_largest_weight_to_the_largest_number() -> None:
    grouped = torch.randn(8, 4, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    codes, scale, _ = FP8.round(grouped, None)
    assert torch.equal(decode(codes).abs().amax(2), torch.full((8, 4), MAX))
    error = (decode(codes) * scale.unsqueeze(2) - grouped).abs()
    assert bool((error <= grouped.abs() * 2**-4 + scale.unsqueeze(2) * 2**-9).all())  # three bits of mantissa


def test_of_the_other_kind_it_is_a_power_of_two() -> None:
    grouped = torch.randn(8, 4, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    _, scale, _ = MXFP8.round(grouped, None)
    assert torch.equal(scale.log2(), scale.log2().round())
