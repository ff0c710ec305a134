"""What holds of rounding in every format, ours included, whoever invented it."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from studio.quantization.rounding import QuantizedWeight, dequantize, round_to_nearest, tensor_params_of
from studio.quantization.scheme import WHOLE_CHANNEL, Mode, Scheme
from tests import hostile
from tests.small import widened
from tests.steps import finish

SCHEMES = [Scheme(mode, group) for mode in Mode for group in mode.stored_as.group_sizes if group in (-1, 16, 32)]
ROWS, WIDTH = 4, 96
SMALLEST_SCALE = 2.0**-23
WEIGHTS = {name: weight[:ROWS, :WIDTH].float() for name, weight in hostile.WEIGHTS.items()}
on_hostile_weights = pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS.keys())
IN_ARRAYS = [scheme for scheme in SCHEMES if not scheme.mode.is_in_blocks]
in_every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


def noise(seed: int) -> torch.Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(seed))


def holds_zero(mode: Mode) -> bool:
    """Return whether zero is a number of the format: there can be an offset, or blocks of uneven levels without one."""
    if mode.stored_as.has_offset:
        return False
    return not mode.is_in_blocks or (not mode.block_format.has_offset and 0 in mode.block_format.levels)


@in_every_scheme
@on_hostile_weights
def test_what_is_stored_is_finite(weight: torch.Tensor, scheme: Scheme) -> None:
    kept = stored(round_to_nearest(widened(weight, scheme), scheme), scheme)
    assert torch.isfinite(kept.scale.float()).all()
    assert torch.isfinite(dequantize(kept, scheme.mode)).all()


@pytest.mark.parametrize("scheme", IN_ARRAYS, ids=str)
@on_hostile_weights
def test_a_stored_scale_is_zero_only_where_float_weights_are_too_small_for_it(
    weight: torch.Tensor, scheme: Scheme
) -> None:
    """fp16 ends at 2^-25, E4M3 at 2^-10 of the scale that all share; integers, levels and powers of two stay above."""
    rounded = round_to_nearest(weight, scheme)
    lost = stored(rounded, scheme).scale.float() == 0
    largest = weight.reshape(*rounded.scale.shape, -1).abs().amax(2)
    if scheme.mode in (Mode.FP4, Mode.FP8_E4M3):
        top = 6 if scheme.mode is Mode.FP4 else 448
        assert torch.equal(lost, largest.clamp(min=SMALLEST_SCALE) / top <= 2.0**-25)
    elif scheme.mode is Mode.NVFP4:
        assert rounded.tensor_params is not None
        assert torch.equal(lost, largest.clamp(min=SMALLEST_SCALE) / 6 / rounded.tensor_params <= 2.0**-10)
    else:
        assert not lost.any()


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if holds_zero(scheme.mode)], ids=str)
@pytest.mark.parametrize("shift", [-10.0, -0.1, 0.0, 0.1, 10.0], ids="shift{}".format)
def test_zero_stays_exactly_zero(scheme: Scheme, shift: float) -> None:
    weight = widened(noise(0) + shift, scheme)
    weight[:, ::7] = 0
    assert (dequantize(stored(round_to_nearest(weight, scheme), scheme), scheme.mode)[:, ::7] == 0).all()


@in_every_scheme
def test_groups_do_not_see_each_other(scheme: Scheme) -> None:
    """Given what a tensor shares. Also: groups run along the input channels, never across rows. Blocks are groups."""
    weight = widened(noise(2), scheme)
    groups = len(weight[0]) // scheme.mode.stored_as.block[0] if scheme.mode.stored_as.block else scheme.groups(WIDTH)
    whole = round_to_nearest(weight, scheme)
    codes = whole.codes.reshape(ROWS, groups, -1)
    alone = Scheme.of(scheme.mode, WHOLE_CHANNEL)
    for row in range(ROWS):
        for index, group in enumerate(weight[row].chunk(groups)):
            found = round_to_nearest(group.reshape(1, -1), alone, whole.tensor_params)
            assert torch.equal(found.codes.flatten(), codes[row, index])
            assert torch.equal(found.scale.flatten(), whole.scale.reshape(ROWS, groups, -1)[row, index])


@in_every_scheme
@pytest.mark.parametrize("rows", [1, 2, 3], ids="{}rows".format)
def test_a_weight_rounded_in_pieces_is_the_whole_one(scheme: Scheme, rows: int) -> None:
    weight = widened(noise(6), scheme)
    weight[2] *= 5
    whole = round_to_nearest(weight, scheme)
    shared = finish(tensor_params_of(weight.split(rows), [scheme])).get(scheme)
    pieces = [round_to_nearest(piece, scheme, shared) for piece in weight.split(rows)]
    assert (shared is not None) == scheme.mode.needs_whole
    if shared is not None and whole.tensor_params is not None:
        assert torch.equal(shared, whole.tensor_params)
    assert torch.equal(torch.cat([piece.codes for piece in pieces]), whole.codes)
    assert torch.equal(torch.cat([piece.scale for piece in pieces]), whole.scale)


def test_what_a_weight_shares_is_found_in_one_pass_that_says_where_it_is() -> None:
    weight = noise(6)
    sharing = [Scheme(Mode.NVFP4, 16), Scheme(Mode.CB4_LEARNED, 16), Scheme(Mode.CB4_LEARNED)]
    asked: list[Tensor] = []

    def pieces() -> Iterator[Tensor]:
        for piece in weight.split(2):
            asked.append(piece)
            yield piece

    steps = tensor_params_of(pieces(), [Scheme(Mode.INT4_SYM, 16), *sharing])
    for count in range(1, len(weight.split(2)) + 1):
        assert next(steps) == sum(piece.numel() for piece in asked)
        assert len(asked) == count
    assert list(finish(steps)) == sharing


def test_a_weight_that_shares_nothing_is_not_looked_at() -> None:
    def pieces() -> Iterator[Tensor]:
        raise AssertionError
        yield

    assert finish(tensor_params_of(pieces(), [Scheme(Mode.INT4_ASYM, 16), Scheme(Mode.MXFP4, 32)])) == {}


@in_every_scheme
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_any_float_dtype_is_read_as_fp32(scheme: Scheme, dtype: torch.dtype) -> None:
    weight = widened(noise(3), scheme).to(dtype)
    assert torch.equal(round_to_nearest(weight, scheme).codes, round_to_nearest(weight.float(), scheme).codes)


@in_every_scheme
def test_the_weight_itself_is_left_alone_and_may_be_a_view(scheme: Scheme) -> None:
    stored = widened(noise(4), scheme).T.contiguous()
    before = stored.clone()
    of_view = round_to_nearest(stored.T, scheme)
    assert torch.equal(stored, before)
    assert torch.equal(of_view.codes, round_to_nearest(before.T.contiguous(), scheme).codes)


@pytest.mark.parametrize(
    ("scheme", "most"),
    # uniform noise of 2^b steps errs by 1/sqrt(12) of a step; a normal row of 96 spans about 5 sigma
    [
        *(
            ("int8_asym", 0.01),
            ("int8_sym", 0.01),
            ("int5_sym-g32", 0.06),
            ("int4_asym-g32", 0.1),
            ("int4_sym-g32", 0.12),
        ),
        *(("int3_sym-g32", 0.24), ("int2_sym-g32", 0.6), ("nf4-g32", 0.1), ("cb4-g32", 0.1), ("cb4_learned-g32", 0.09)),
        *(("fp4-g32", 0.12), ("mxfp4", 0.14), ("nvfp4", 0.12), ("fp8_e4m3-g32", 0.03), ("mxfp8_e4m3", 0.03)),
    ],
)
def test_the_error_on_normal_weights_is_that_of_the_bits(scheme: str, most: float) -> None:
    assert most / 4 < error(noise(5), Scheme.parse(scheme)) < most


LEARNED = [scheme for scheme in SCHEMES if scheme.mode is Mode.CB4_LEARNED]


@pytest.mark.parametrize("scheme", LEARNED, ids=str)
@on_hostile_weights
def test_a_learned_code_is_the_nearest_of_sixteen_levels_that_rise_and_hold_zero(
    weight: torch.Tensor, scheme: Scheme
) -> None:
    rounded = round_to_nearest(weight, scheme)
    assert rounded.tensor_params is not None
    levels = rounded.tensor_params.double()
    assert rounded.tensor_params.dtype is torch.float16
    assert levels.shape == (16,)
    assert (levels.diff() > 0).all()
    assert levels[7] == 0
    groups = scheme.groups(WIDTH)
    largest = weight.float().reshape(ROWS, groups, -1).abs().amax(2)
    assert torch.equal(rounded.scale, largest.clamp(min=SMALLEST_SCALE))
    normal = weight.float().reshape(ROWS, groups, -1) / rounded.scale.unsqueeze(2)
    distances = (normal.double().unsqueeze(3) - levels).abs()
    chosen = distances.gather(3, rounded.codes.reshape(ROWS, groups, -1, 1).long()).squeeze(3)
    assert torch.allclose(chosen, distances.amin(3), rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", ["normal", "laplace", "uniform"])
def test_learned_levels_beat_fixed_ones(shape: str) -> None:
    """That is what they cost 32 bytes for: less error than NF4 and CB4 on weights of any distribution."""
    torch.manual_seed(7)
    weight = {
        "normal": lambda: torch.randn(64, 512),
        "laplace": lambda: torch.distributions.Laplace(0, 1).sample((64, 512)),
        "uniform": lambda: torch.rand(64, 512) - 0.5,
    }[shape]()
    errors = {mode: error(weight, Scheme(mode, 64)) for mode in (Mode.CB4_LEARNED, Mode.NF4, Mode.CB4)}
    assert min(errors, key=errors.__getitem__) is Mode.CB4_LEARNED


def error(weight: torch.Tensor, scheme: Scheme) -> float:
    kept = dequantize(stored(round_to_nearest(weight, scheme), scheme), scheme.mode)
    return float((kept - weight).norm() / weight.norm())


def stored(rounded: QuantizedWeight, scheme: Scheme) -> QuantizedWeight:
    return rounded.stored(scheme.mode.stored_as.scale_dtype)
