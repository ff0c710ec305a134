"""A histogram of weights: what snaps where is as rounding has it, and the levels stand where a format has them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.layers import Layer
from studio.planning.weight_levels import BINS, weight_levels
from studio.quantization.rounding.levels import NF4_LEVELS
from studio.quantization.rounding.nearest import dequantize, round_to_nearest
from studio.quantization.scheme import Mode, Scheme


@pytest.fixture(scope="module")
def model(tiny_model: Callable[[str], Path]) -> Checkpoint:
    return of_folder(tiny_model("llama"))


def layer_of(model: Checkpoint) -> Layer:
    return next(layer for layer in model.layers if "down_proj" in layer.name)


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode.bits <= 5 and not mode.is_in_blocks], ids=str)
def test_every_weight_is_counted_and_goes_to_a_level_of_its_scheme(model: Checkpoint, mode: Mode) -> None:
    layer, scheme = layer_of(model), Scheme.of(mode, 32)
    found = weight_levels(model, layer, scheme)
    assert found.sampled == found.whole == sum(found.counts) == layer.numel
    assert len(found.edges) == BINS + 1
    assert 2 <= len(found.levels) <= 2**mode.bits
    assert list(found.levels) == sorted(found.levels)
    assert sum(found.taken) == pytest.approx(1)
    assert found.group is not None
    assert set(found.group.snapped) <= set(found.group.levels)
    assert len(found.group.weights) == scheme.group_size
    weight = model.read(layer, 0, layer.matrix[0]).float()
    zero = float((dequantize(round_to_nearest(weight, scheme), mode) == 0).double().mean())
    at_zero = sum(share for level, share in zip(found.levels, found.taken, strict=True) if abs(level) < 1e-6)
    if not mode.grid.takes_zero_point:  # else each group has its zero at another of the levels
        assert at_zero == pytest.approx(zero, abs=1e-6)


def test_nf4_has_its_sixteen_uneven_levels(model: Checkpoint) -> None:
    found = weight_levels(model, layer_of(model), Scheme(Mode.NF4, 64))
    assert found.levels == pytest.approx(NF4_LEVELS, abs=1e-3)


def test_a_block_format_has_the_levels_of_its_sub_blocks(model: Checkpoint) -> None:
    found = weight_levels(model, layer_of(model), Scheme.parse("q4_0"))
    assert len(found.levels) == 16
    assert found.levels[-1] < 1
    assert found.group is not None
    steps = torch.tensor(found.group.levels).diff()
    assert steps.min() == pytest.approx(float(steps.max()), rel=1e-4)


@pytest.mark.parametrize("scheme", [None, Scheme(Mode.INT8_ASYM)], ids=str)
def test_too_many_levels_are_not_drawn(model: Checkpoint, scheme: Scheme | None) -> None:
    found = weight_levels(model, layer_of(model), scheme)
    assert found.levels == ()
    assert found.group is None
    assert sum(found.counts) == layer_of(model).numel
