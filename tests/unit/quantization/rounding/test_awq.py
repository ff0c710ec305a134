"""AWQ's scales: folding changes nothing by itself, and rounding loses less where a few channels carry the most."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.layers import Kind, Layer
from studio.compression import sequential as module
from studio.compression.channel_scaling import folds
from studio.compression.compress import compress
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.methods import Method
from studio.quantization.rounding import Statistics, dequantize, round_to_nearest
from studio.quantization.rounding.awq import channel_scales, scaled
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.block_model import BlockModel
from tests.steps import finish

SCHEME = Scheme(Mode.INT4_ASYM, 32)
TOKENS = torch.arange(96).reshape(2, 48) % 200


def random_scales(weight: Tensor, scheme: Scheme, statistics: Statistics) -> Tensor:
    return torch.rand(weight.shape[1], generator=torch.Generator().manual_seed(weight.shape[0])) + 0.5


def folded(checkpoint: Checkpoint) -> dict[Layer, Tensor]:
    """Return every tensor that folding changes, with scales drawn at random."""
    model = BlockModel(checkpoint).model
    layers = {layer.name: layer for layer in checkpoint.layers}
    linear = [layer for layer in checkpoint.layers if layer.kind is Kind.LINEAR]
    known = {layer: Statistics(torch.eye(layer.matrix[1]), 1) for layer in linear}
    found: dict[Layer, Tensor] = {}
    for part in ("model.layers.0", "model.layers.1"):
        block = model.get_submodule(part)
        for fold in folds(block, part, layers, frozenset(layer.name for layer in linear)):
            module._fold(checkpoint, fold, {layer.name: SCHEME for layer in linear}, known, found)
    return found


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_folding_changes_many_tensors_and_no_output(
    architecture: str, tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = of_folder(tiny_model(architecture))
    monkeypatch.setattr(module, "channel_scales", random_scales)
    changed = folded(checkpoint)
    assert sum(layer.kind is Kind.OTHER for layer in changed) == 4  # two norms a block
    assert sum(layer.kind is Kind.LINEAR for layer in changed) == 12  # all but o_proj
    for layer, tensor in changed.items():
        assert not torch.allclose(tensor.float(), checkpoint.read(layer).float(), rtol=0.05)
    before = finish(BlockModel(checkpoint, torch.float32).run(TOKENS))
    after = finish(BlockModel(checkpoint, torch.float32, lambda layer, tensor: changed.get(layer, tensor)).run(TOKENS))
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-5)


def test_blocks_of_unknown_code_are_left_alone(tiny_model: Callable[[str], Path]) -> None:
    assert folded(of_folder(tiny_model("phi3"))) == {}


def test_scales_spare_the_channels_that_carry_the_most() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 96, generator=generator) * 0.05
    given = torch.randn(400, 96, generator=generator)
    given[:, ::24] *= 30
    known = Statistics(given.T @ given / len(given), len(given))
    scales = channel_scales(weight, SCHEME, known)
    assert scales[::24].min() > 2 * scales.median()

    def error(weights: Tensor, inputs: Tensor) -> float:
        stored = dequantize(round_to_nearest(weights, SCHEME).stored(), SCHEME.mode)
        return float((inputs @ stored.T - given @ weight.T).square().sum())

    assert error(weight * scales, given / scales) < 0.6 * error(weight, given)
    other = given / scales
    assert torch.allclose(scaled(known, scales).hessian, other.T @ other / len(other), rtol=1e-3, atol=1e-4)


def test_a_folded_norm_is_written_and_its_bytes_stay(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    plan = make_plan(checkpoint.layers, Choice(Mode.INT4_ASYM, 32, method=Method.AWQ))
    done = finish(compress(checkpoint, plan, tmp_path / "packed.safetensors", TOKENS))
    assert done.unreached == ()
    norm = next(layer for layer in checkpoint.layers if layer.name == "model.layers.0.input_layernorm.weight")
    with safe_open(done.file, framework="pt") as arrays:
        kept = arrays.get_tensor(norm.name)
        names = set(arrays.keys())
    assert kept.shape == norm.shape
    assert kept.dtype == checkpoint.saved_dtype(norm)
    assert not torch.equal(kept.float(), checkpoint.read(norm).float())
    assert {a.layer.name for a in plan.assignments if a.scheme is None} <= names
