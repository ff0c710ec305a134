"""Rounded inputs and weights: the levels that a kernel would hold, outliers left alone, and the model with them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from studio.checkpoint.checkpoint import of_folder
from studio.evaluation.simulated import Rounding, SimulatedModel, rounded_inputs, rounded_weight
from studio.runtime.block_model import BlockModel
from tests.steps import finish

IDS = torch.arange(3 * 40).reshape(3, 40) * 7 % 200


@pytest.mark.parametrize("bits", [8, 4])
def test_inputs_lie_on_the_levels_of_their_own_token(bits: int) -> None:
    values = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    most = 2 ** (bits - 1) - 1
    levels = rounded_inputs(values, bits) / (values.abs().amax(-1, keepdim=True) / most)
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert levels.abs().max() <= most + 1e-4
    assert (rounded_inputs(values, bits) - values).abs().max() <= values.abs().max() / most / 2 + 1e-6
    assert torch.equal(rounded_inputs(torch.zeros(1, 4), bits), torch.zeros(1, 4))


def test_a_channel_with_an_outlier_stays_exact_and_leaves_the_scale_to_the_others() -> None:
    values = torch.full((3, 4), 0.5)
    values[1, 2] = 60.0
    values[:, 0] = torch.tensor([0.1, 0.2, 0.3])
    mixed, plain = rounded_inputs(values, 8, outliers=True), rounded_inputs(values, 8)
    assert torch.equal(mixed[:, 2], values[:, 2])
    assert (mixed - values).abs().max() <= 0.5 / 127 / 2 + 1e-6
    assert (plain - values).abs().max() > 0.1  # one scale for 60 and 0.2


def test_an_outlier_is_one_of_its_own_text_alone() -> None:
    values = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    values[0, 3, 7] = 60.0
    together = rounded_inputs(values, 8, outliers=True)
    assert torch.equal(together, torch.stack([rounded_inputs(text, 8, outliers=True) for text in values]))
    assert torch.equal(together[0, :, 7], values[0, :, 7])
    assert not torch.equal(together[1, :, 7], values[1, :, 7])


def test_weights_outside_the_blocks_stay(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    for layer in checkpoint.layers:
        weight = checkpoint.read(layer).float()
        is_changed = not torch.equal(rounded_weight(layer, weight, 4), weight)
        assert is_changed == (layer.block is not None and len(layer.shape) == 2), layer.name


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_without_a_rounding_it_is_the_model_itself(tiny_model: Callable[[str], Path], architecture: str) -> None:
    checkpoint = of_folder(tiny_model(architecture))
    plain = finish(BlockModel(checkpoint, torch.float32).run(IDS))
    assert torch.equal(finish(SimulatedModel(checkpoint, Rounding("none")).hidden(IDS)), plain)
    rounded = finish(SimulatedModel(checkpoint, Rounding("A8", inputs=8)).hidden(IDS))
    assert 0 < float((rounded - plain).norm() / plain.norm()) < 0.05
