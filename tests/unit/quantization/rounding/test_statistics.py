"""Statistics of inputs: the inverse is that of the damped matrix, whatever the inputs were."""

import pytest
import torch

from studio.quantization.rounding.statistics import DAMP, Statistics


def of(inputs: torch.Tensor) -> Statistics:
    return Statistics(inputs.T @ inputs / len(inputs), len(inputs))


def some(rows: int, width: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0), dtype=torch.float32)


def test_power_is_the_mean_square_of_each_channel() -> None:
    inputs = some(50, 8)
    assert torch.allclose(of(inputs).power, inputs.square().mean(0))


@pytest.mark.parametrize("rows", [200, 3], ids=["known", "singular"])
def test_the_factor_is_that_of_the_damped_inverse(rows: int) -> None:
    statistics = of(some(rows, 16))
    order, upper = statistics.inverse_cholesky
    assert bool((statistics.power[order].diff() <= 0).all())
    assert torch.equal(upper, upper.triu())
    damped = statistics.hessian[order][:, order].double()
    damped += DAMP * damped.diagonal().mean() * torch.eye(16, dtype=torch.float64)
    product = upper.double().T @ upper.double() @ damped
    assert torch.allclose(product, torch.eye(16, dtype=torch.float64), atol=1e-3)


def test_a_channel_that_is_always_zero_stands_alone() -> None:
    inputs = some(50, 8)
    inputs[:, 3] = 0
    order, upper = of(inputs).inverse_cholesky
    place = int((order == 3).nonzero())
    assert int((upper[place] != 0).sum()) == int((upper[:, place] != 0).sum()) == 1


@pytest.mark.parametrize(("value", "expected"), [(1.0, True), (0.0, False), (torch.inf, False), (torch.nan, False)])
def test_inputs_of_nothing_or_of_no_numbers_are_not_active(value: float, expected: bool) -> None:
    assert Statistics(torch.full((4, 4), value), 1).is_active is expected


def test_what_is_no_matrix_of_moments_is_refused() -> None:
    with pytest.raises(ValueError, match="not positive"):
        _ = Statistics(-torch.eye(4), 1).inverse_cholesky
