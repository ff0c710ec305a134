"""The weight error of each tensor is ‖W − Ŵ‖ / ‖W‖, whatever pieces it is read in."""

from pathlib import Path

import pytest
import torch

from studio.base.errors import CheckpointError
from studio.checkpoint import row_reader
from studio.evaluation.weight_errors import WeightError, weight_errors
from tests.small import a_few_weights, saved
from tests.steps import finish


def test_errors_are_those_of_whole_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "CHUNK_WEIGHTS", 64 * 6)
    weights = a_few_weights()
    original = saved(tmp_path / "original", weights)
    noisy = {name: (each + 0.01 * torch.randn(each.shape)).bfloat16() for name, each in weights.items()}
    other = saved(tmp_path / "other", noisy)
    found = finish(weight_errors(other.layers, other.read, original))
    assert found.keys() == {name for name in weights if "norm" not in name}
    for name, error in found.items():
        expected = (noisy[name].double() - weights[name].double()).norm() / weights[name].double().norm()
        assert error.relative == pytest.approx(float(expected), rel=1e-5)
    assert all(error.relative == 0 for error in finish(weight_errors(other.layers, other.read, other)).values())


def test_sums_add_up_and_zeros_have_no_error() -> None:
    assert (WeightError(1, 4) + WeightError(3, 12)).relative == 0.5
    assert WeightError(0, 0).relative == 0
    assert WeightError(1, 0).relative == float("inf")


def test_a_tensor_that_the_original_has_not_is_named(tmp_path: Path) -> None:
    weights = a_few_weights()
    model = saved(tmp_path / "model", weights)
    lacking = {name: each for name, each in weights.items() if name != "b.0.up.weight"}
    for original in (lacking, weights | {"b.0.up.weight": torch.zeros(64, 96, dtype=torch.bfloat16)}):
        with pytest.raises(CheckpointError) as refused:
            finish(weight_errors(model.layers, model.read, saved(tmp_path / "original", original)))
        assert refused.value.key == "other_model"
        assert "b.0.up.weight" in str(refused.value)


def test_what_is_no_number_is_named(tmp_path: Path) -> None:
    weights = a_few_weights()
    weights["b.0.up.weight"][3, 3] = float("nan")
    model = saved(tmp_path, weights)
    with pytest.raises(CheckpointError) as refused:
        finish(weight_errors(model.layers, model.read, model))
    assert refused.value.key == "not_finite"
