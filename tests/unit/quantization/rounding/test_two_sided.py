"""Rounding by both sides' moments: less of what is weighed by both is lost than by the inputs' alone."""

import pytest
import torch
from torch import Tensor

from studio.quantization.rounding import QuantizedWeight, Statistics, dequantize
from studio.quantization.rounding.methods import fitted_gptq, gptq_on
from studio.quantization.rounding.two_sided import ROWS, joined, two_sided
from studio.quantization.scheme import Mode, Scheme

SCHEMES = [
    Scheme(Mode.INT4_ASYM, 32),
    Scheme(Mode.NF4, 32),
    Scheme(Mode.INT4_AFFINE, 32),
    Scheme.of(Mode.Q4_0, 32),
    Scheme(Mode.CB4_LEARNED, 32),
]


def moments(channels: int, seed: int) -> Statistics:
    """Of channels that go along with each other."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(4000, 8, generator=generator) @ torch.randn(8, channels, generator=generator)
    rows = common + torch.randn(4000, channels, generator=generator)
    return Statistics(rows.T @ rows / len(rows), 40000)


def weight(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def loss(weight: Tensor, scheme: Scheme, rounded: QuantizedWeight, inputs: Statistics, outputs: Statistics) -> float:
    """tr(G E H E^T)."""
    stored = rounded if rounded.blocks is not None else rounded.stored(scheme.mode.stored_as.scale_dtype)
    error = dequantize(stored, scheme.mode) - weight
    return float(((outputs.hessian @ error) * (error @ inputs.hessian)).sum())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_less_is_lost_than_by_one_side(scheme: Scheme) -> None:
    given, inputs, outputs = weight(3 * ROWS, 64), moments(64, 1), moments(3 * ROWS, 2)
    one = fitted_gptq(given, scheme, inputs)
    both = two_sided([given], scheme, inputs, [outputs], gptq_on)[0]
    assert both.codes.shape == given.shape
    assert loss(given, scheme, both, inputs, outputs) < 0.9 * loss(given, scheme, one, inputs, outputs)


def test_without_moments_it_is_the_method_of_one_side() -> None:
    scheme, inputs = SCHEMES[0], moments(64, 1)
    given = [weight(ROWS, 64), weight(40, 64, 1)]
    for each, found in zip(given, two_sided(given, scheme, inputs, [None, None], gptq_on), strict=True):
        alone = fitted_gptq(each, scheme, inputs)
        assert torch.equal(alone.codes, found.codes)
        assert torch.equal(alone.scale, found.scale)


def test_weights_side_by_side_are_what_each_is_alone() -> None:
    """Of unlike heights, one of which has no moments."""
    scheme, inputs = SCHEMES[0], moments(64, 1)
    given = [weight(3 * ROWS, 64), weight(ROWS, 64, 1), weight(30, 64, 2)]
    outputs = [moments(3 * ROWS, 2), moments(ROWS, 3), None]
    together = two_sided(given, scheme, inputs, outputs, gptq_on)
    for each, own, found in zip(given, outputs, together, strict=True):
        alone = two_sided([each], scheme, inputs, [own], gptq_on)[0]
        assert (alone.codes == found.codes).float().mean() > 0.995  # sums of other shapes end in other bits


def test_moments_of_nothing_are_left_out() -> None:
    given, inputs = weight(ROWS + 1, 64), moments(64, 1)
    dead = Statistics(torch.zeros(ROWS + 1, ROWS + 1), 100)
    found = two_sided([given], SCHEMES[0], inputs, [dead], gptq_on)[0]
    assert torch.equal(found.codes, fitted_gptq(given, SCHEMES[0], inputs).codes)


def test_parts_are_joined_as_they_were() -> None:
    for scheme in SCHEMES:
        whole = fitted_gptq(weight(20, 64), scheme, moments(64, 1))
        again = joined([whole.rows(slice(0, 7)), whole.rows(slice(7, 20))])
        assert torch.equal(again.codes, whole.codes)
        assert torch.equal(again.scale, whole.scale)
        if whole.blocks is not None and again.blocks is not None:
            assert torch.equal(again.blocks.d, whole.blocks.d)
