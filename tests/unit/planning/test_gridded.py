"""A model whose weights lie on a 4-bit grid is recognized by its weights, whatever file they came in."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.file_names import WEIGHTS
from studio.planning.gridded import grid_of
from tests.unit.quantization.rounding.test_regained import on_grid

TinyModel = Callable[[str], Path]


def with_weights(source: Path, folder: Path, mode: str, dtype: torch.dtype, but: str = "") -> Checkpoint:
    """Return a copy of a model, its weights on the grid of one of ggml's types, all but those with ``but`` in it."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / WEIGHTS)
    for index, (name, tensor) in enumerate(tensors.items()):
        is_linear = "_proj" in name and not (but and but in name)
        if is_linear:
            rows, width = tensor.shape
            tensors[name] = on_grid(mode, dtype, rows, width // 32, seed=index)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return of_folder(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", ["q4_0", "q4_1"])
def test_weights_on_a_grid_are_recognized(tiny_model: TinyModel, tmp_path: Path, mode: str, dtype: torch.dtype) -> None:
    found = grid_of(with_weights(tiny_model("llama"), tmp_path / "model", mode, dtype))
    assert str(found) == mode


def test_one_layer_beside_it_is_enough_for_none(tiny_model: TinyModel, tmp_path: Path) -> None:
    assert grid_of(with_weights(tiny_model("llama"), tmp_path / "m", "q4_1", torch.float16, "1.mlp.down_proj")) is None


def test_most_models_are_on_none(tiny_model: TinyModel) -> None:
    assert grid_of(of_folder(tiny_model("llama"))) is None


@pytest.mark.real
def test_the_built_in_model_is_on_one(builtin: Checkpoint) -> None:
    assert str(grid_of(builtin)) == "q4_1"
