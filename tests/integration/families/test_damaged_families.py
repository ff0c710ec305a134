"""Tensors that are not as their family's: of one axis, under another name, in no file or in two."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.base.errors import CheckpointError
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.layers import Kind
from studio.planning.choice import Choice
from studio.runtime.model import load_compressed, load_original
from studio.session.session import Session
from tests.family_models import Made, changed, logits, sharded, write_index
from tests.steps import finish


def test_a_tensor_of_one_axis_where_a_weight_belongs_is_named(copied: Callable[[str], Path]) -> None:
    folder = changed(copied("llama"), model__layers__1__mlp__up_proj__weight=torch.ones(64 * 32))
    with pytest.raises(CheckpointError) as caught:
        of_folder(folder)
    assert caught.value.values == {"tensor": "model.layers.1.mlp.up_proj.weight"}


@pytest.mark.parametrize("family", ["gemma", "t5", "gpt2"])
def test_a_tensor_saved_under_each_of_its_names_or_only_the_last_is_the_same(
    made: Callable[[str], Made], copied: Callable[[str], Path], family: str
) -> None:
    folder = copied(family)
    owner = next(layer for layer in of_folder(folder).layers if layer.tied)
    value = load_file(folder / WEIGHTS)[owner.source]
    expected = logits(load_original(made(family).checkpoint))
    changed(folder, **{twin: value.clone() for twin in owner.tied})
    assert torch.equal(logits(load_original(of_folder(folder))), expected)
    changed(folder, **{owner.source: None})
    assert torch.equal(logits(load_original(of_folder(folder))), expected)


def test_a_file_the_index_does_not_name_is_missed_by_its_tensor(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    whole = sharded(folder)
    write_index(folder, {name: shard for name, shard in whole.items() if shard != "two.safetensors"})
    with pytest.raises(CheckpointError) as caught:
        of_folder(folder)
    assert caught.value.key == "tensor_missing"


def test_a_tensor_in_two_files_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    weight_map = sharded(folder)
    tensors = load_file(folder / "one.safetensors") | load_file(folder / "two.safetensors")
    save_file(tensors, folder / "two.safetensors", {"format": "pt"})
    write_index(folder, weight_map)
    with pytest.raises(CheckpointError) as caught:
        of_folder(folder)
    assert (caught.value.key, caught.value.values) == ("tensor_twice", {"tensor": "lm_head.weight"})


@pytest.mark.parametrize(
    ("family", "backup"),
    [("mixtral", "int8_asym"), ("mixtral", "none"), ("qwen3_vl_moe", "none"), ("gpt_oss", "none")],
)
def test_experts_kept_at_16_bits_are_as_they_were(
    made: Callable[[str], Made], copied: Callable[[str], Path], family: str, backup: str
) -> None:
    session = Session(paths=True, workspace=copied(family) / "workspace")
    checkpoint = finish(session.open(str(made(family).source)))
    session.planner.choose(Choice.of("int4_asym", -1, 0.05, backup))
    finish(session.compress())
    assert session.copy.folder is not None
    kept = dict(load_compressed(session.copy.folder).named_parameters())
    original = dict(load_original(checkpoint).named_parameters())
    experts = [layer.name for layer in checkpoint.layers if len(layer.shape) == 3 and layer.kind is Kind.LINEAR]
    assert any(name in kept for name in experts) == (backup == "none")
    for name in kept:
        assert torch.equal(kept[name], original[name])
    session.close()
