"""Moments of gradients: their sums over tokens, in whatever pieces they come, and none where they would not fit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from studio.calibration import output_moments, token_weights
from studio.calibration.output_moments import OutputMoments
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.layers import ratio_defining
from tests.steps import finish

TOKENS = torch.arange(96).reshape(2, 48) % 200


def test_they_are_of_the_same_gradients_as_the_tokens_weights(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer alone with its input (o_proj): the trace of its moments is the mean of what its tokens weigh."""
    monkeypatch.setattr(token_weights, "fast_dtype", lambda: torch.float32)
    checkpoint = of_folder(tiny_model("llama"))
    layers = ratio_defining(checkpoint.layers)
    moments = OutputMoments(layers)
    squares: dict[str, float] = {}

    def also(name: str, gradient: torch.Tensor) -> None:
        moments.add(name, gradient)
        squares[name] = squares.get(name, 0.0) + float(gradient.square().sum())

    finish(token_weights.token_weights(checkpoint, layers, TOKENS, also))
    found = moments.statistics()
    assert found.keys() == {layer.name for layer in layers}
    for layer in layers:
        given = found[layer.name]
        assert given.hessian.shape == (layer.matrix[0],) * 2
        assert given.tokens == TOKENS.numel()
        assert float(given.hessian.trace()) == pytest.approx(squares[layer.name] / TOKENS.numel(), rel=1e-4)


def test_pieces_are_summed_and_wide_layers_left_out(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = ratio_defining(of_folder(tiny_model("llama")).layers)
    narrow = min(layer.matrix[0] for layer in layers)
    some = [layer for layer in layers if layer.matrix[0] == narrow]
    monkeypatch.setattr(output_moments, "MOMENTS_BYTES", 4 * narrow**2 * len(some))
    monkeypatch.setattr(output_moments, "PIECE", 5)
    moments = OutputMoments(layers)
    gradient = torch.randn(3, 7, narrow)
    for layer in layers:
        moments.add(layer.name, gradient)
    sums = dict(moments._sums)
    found = moments.statistics()
    assert found.keys() == {layer.name for layer in some}
    assert all(found[name].hessian is each for name, each in sums.items())  # no second copy of all
    assert not moments.statistics()
    rows = gradient.flatten(0, 1)
    assert torch.allclose(found[some[0].name].hessian, rows.T @ rows / len(rows), atol=1e-5)
