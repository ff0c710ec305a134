"""Rounding methods: each does what it promises on its own objective, and what it returns can be stored exactly."""

import pytest
import torch
from torch import Tensor

from studio.quantization.methods import BEST, Method
from studio.quantization.packing import pack, unpack
from studio.quantization.rounding import QuantizedWeight, Statistics, dequantize, round_to_nearest
from studio.quantization.rounding.gptq import gptq
from studio.quantization.rounding.least_squares import importance, least_squares
from studio.quantization.scheme import Mode, Scheme

ROWS, WIDTH, TOKENS = 24, 256, 400
SCHEMES = [Scheme.of(mode, 32) for mode in Mode if mode.bits < 8]
FREE_SCALES = [scheme for scheme in SCHEMES if scheme.mode.stored_as.scale_dtype == "F16"]
in_every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)
by_every_method = pytest.mark.parametrize("method", list(Method), ids=str)


def weight() -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0)) * 0.05


def inputs() -> Tensor:
    """Inputs whose channels are of very different power and go together, as real ones do."""
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(TOKENS, WIDTH, generator=generator) @ torch.randn(WIDTH, WIDTH, generator=generator)
    return mixed * torch.logspace(-1, 1, WIDTH)[torch.randperm(WIDTH, generator=generator)]


def statistics(given: Tensor) -> Statistics:
    return Statistics(given.T @ given / len(given), len(given))


def found_by(method: Method, scheme: Scheme, known: Statistics) -> QuantizedWeight:
    calibrated = method.calibrated
    if calibrated is None:
        return method.data_free(weight(), scheme, None)
    return calibrated(weight(), scheme, known)


def stored(rounded: QuantizedWeight, scheme: Scheme) -> Tensor:
    return pack(rounded, scheme).dequantize()


def output_error(rounded: QuantizedWeight, scheme: Scheme, given: Tensor) -> float:
    return float((given @ (stored(rounded, scheme) - weight()).T).square().sum())


def test_the_methods_with_a_calibrated_part_are_those_that_say_so() -> None:
    assert [method for method in Method if method.calibrated] == [m for m in Method if m.needs_inputs]


@by_every_method
@in_every_scheme
def test_what_a_method_finds_packs_and_unpacks_exactly(method: Method, scheme: Scheme) -> None:
    found = found_by(method, scheme, statistics(inputs()))
    kept = found.stored(scheme.mode.stored_as.scale_dtype)
    back = unpack(pack(found, scheme))
    assert torch.equal(back.codes, found.codes)
    assert torch.equal(back.scale.float(), kept.scale.float())
    assert (back.zero_point is None) == (found.zero_point is None)
    if back.zero_point is not None and found.zero_point is not None:
        assert torch.equal(back.zero_point, found.zero_point)
    assert torch.equal(stored(found, scheme), dequantize(kept, scheme.mode))
    assert stored(found, scheme).isfinite().all()


@in_every_scheme
def test_gptq_with_inputs_that_do_not_go_together_is_round_to_nearest_on_the_stored_grid(scheme: Scheme) -> None:
    start = least_squares(weight(), scheme)
    found = gptq(weight(), scheme, start, Statistics(torch.eye(WIDTH), 1))
    nearest = (stored(start, scheme) - weight()).abs()
    # On the fp16 scale, where nearest looked at the fp32 one: never farther.
    assert ((stored(found, scheme) - weight()).abs() <= nearest + 1e-7).all()
    if scheme in FREE_SCALES and scheme.mode is not Mode.FP4:
        assert torch.equal(found.codes, start.codes)


@pytest.mark.parametrize("scheme", FREE_SCALES, ids=str)
@pytest.mark.parametrize("known", [True, False], ids=["power", "no_power"])
def test_least_squares_never_does_worse_than_nearest_on_its_own_objective(scheme: Scheme, known: bool) -> None:
    power = statistics(inputs()).power if known else None
    given = importance(weight().reshape(ROWS, -1, 32), power)

    def objective(rounded: QuantizedWeight) -> Tensor:
        return (given * (stored(rounded, scheme) - weight()).reshape(given.shape).square()).sum(2)

    better, nearest = (
        objective(r) for r in (least_squares(weight(), scheme, power), round_to_nearest(weight(), scheme))
    )
    assert (better <= nearest * (1 + 1e-5)).all()
    # The finer the grid, the less there is to win by clipping a group's range.
    assert better.sum() < {6: 1.0, 7: 1.0, 5: 0.97}.get(scheme.mode.bits, 0.95) * nearest.sum()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_gptq_moves_the_output_less_than_the_rounding_it_starts_from(scheme: Scheme) -> None:
    given = inputs()
    known = statistics(given)
    gentle, rough = found_by(Method.NEAREST_GPTQ, scheme, known), round_to_nearest(weight(), scheme)
    assert output_error(gentle, scheme, given) < 0.9 * output_error(rough, scheme, given)


def test_the_recommended_method_is_the_best_of_all_on_the_output() -> None:
    given, scheme = inputs(), Scheme(Mode.INT4_ASYM, 32)
    errors = {method: output_error(found_by(method, scheme, statistics(given)), scheme, given) for method in Method}
    assert errors[BEST] == min(errors.values())


def test_half_quadratic_lets_outliers_err_for_the_sake_of_the_rest() -> None:
    outlying = weight()
    outlying[:, ::32] *= 12
    scheme = Scheme(Mode.INT4_ASYM, 32)
    usual = torch.ones(WIDTH, dtype=torch.bool)
    usual[::32] = False

    def error(method: Method) -> float:
        return float((stored(method.data_free(outlying, scheme, None), scheme) - outlying)[:, usual].abs().mean())

    assert error(Method.HALF_QUADRATIC) < error(Method.NEAREST)


@pytest.mark.parametrize("rank", [0, 1, 40], ids="rank{}".format)
def test_moments_of_too_few_tokens_still_give_a_feedback(rank: int) -> None:
    given = inputs()[:rank] if rank else torch.zeros(1, WIDTH)
    given[:, 5] = 0
    if not rank:
        assert not statistics(given).is_active
        return
    order, upper = statistics(given).inverse_cholesky
    assert sorted(order.tolist()) == list(range(WIDTH))
    assert upper.isfinite().all()
    assert (upper.diagonal() > 0).all()
    found = gptq(weight(), SCHEMES[0], round_to_nearest(weight(), SCHEMES[0]), statistics(given))
    assert stored(found, SCHEMES[0]).isfinite().all()


def test_feedback_is_the_inverse_of_the_damped_moments() -> None:
    known = statistics(inputs())
    order, upper = known.inverse_cholesky
    damped = known.hessian + 0.1 * known.power.mean() * torch.eye(WIDTH)
    whole = (upper.T @ upper) @ damped[order][:, order]
    assert torch.allclose(whole, torch.eye(WIDTH), atol=1e-3)


def test_moments_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="not positive"):
        _ = Statistics(1e9 * torch.ones(WIDTH, WIDTH).fill_diagonal_(1e-9), 1).inverse_cholesky
