"""Predicted damage: what rounding one layer alone really costs, and nothing of a layer whose scheme loses nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from studio.base.settings import settings
from studio.calibration.activations import builtin_tokens
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.layers import Layer, ratio_defining
from studio.planning.predicted_damage import column_costs, measure
from studio.quantization.rounding import dequantize, round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.block_model import BlockModel
from tests.steps import finish

TOKENS = torch.arange(512).reshape(8, 64) * 7 % 200
COARSE, FINE = Scheme(Mode.INT2_SYM, 32), Scheme(Mode.INT8_ASYM)


def logs(checkpoint: Checkpoint, rounded: str | None = None) -> Tensor:
    def transform(layer: Layer, tensor: Tensor) -> Tensor:
        if layer.name != rounded:
            return tensor
        return dequantize(round_to_nearest(tensor.float(), COARSE), COARSE.mode)

    model = BlockModel(checkpoint, torch.float32, transform)
    hidden = finish(model.run(TOKENS))
    return log_softmax(torch.cat(list(model.logits(hidden)), 1), -1)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "cache_dir", tmp_path)


def damages(checkpoint: Checkpoint, scheme: Scheme) -> dict[str, float]:
    return {name: line[str(scheme)] for name, line in finish(measure(checkpoint, [scheme], TOKENS)).items()}


def test_the_prediction_follows_what_rounding_a_layer_alone_costs(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    layers = ratio_defining(checkpoint.layers, all_layers=True)
    found = damages(checkpoint, COARSE)
    assert found.keys() == {layer.name for layer in layers}
    before = logs(checkpoint)
    measured = [float((before.exp() * (before - logs(checkpoint, layer.name))).sum(-1).mean()) for layer in layers]
    both = torch.tensor([[found[layer.name] for layer in layers], measured]).log()
    assert float(torch.corrcoef(both)[0, 1]) > 0.9
    assert float((both[0] - both[1]).abs().median()) < 0.7  # half to twice


def test_eight_bits_cost_far_less_than_two(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    coarse, fine = damages(checkpoint, COARSE), damages(checkpoint, FINE)
    assert all(0 < fine[name] < 0.01 * coarse[name] for name in coarse)


def test_the_map_is_that_of_the_formula_and_kept(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    found = finish(measure(checkpoint, [COARSE, FINE]))
    costs = finish(column_costs(checkpoint, builtin_tokens(checkpoint)))
    for layer in ratio_defining(checkpoint.layers, all_layers=True):
        for scheme in (COARSE, FINE):
            weight = checkpoint.read(layer).float()
            moved = dequantize(round_to_nearest(weight, scheme).stored(), scheme.mode) - weight
            expected = float((moved.double().square() @ costs[layer.name].double()).sum())
            assert found[layer.name][str(scheme)] == pytest.approx(expected, rel=1e-3)
    assert list(measure(checkpoint, [COARSE, FINE])) == []  # the model did not run
    assert finish(measure(checkpoint, [COARSE, FINE])) == found
    assert list(measure(checkpoint, [COARSE])) != []
    assert list(measure(checkpoint, [COARSE, FINE], TOKENS)) != []
