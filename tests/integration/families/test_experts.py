"""Models of many experts: packed and taken out one by one, read across tensors and files, missed by name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from studio.base.errors import CheckpointError, UserError
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.layers import Kind
from studio.planning.choice import Choice
from studio.runtime.kernels import PackedStack
from studio.runtime.model import load_compressed, load_original, slow_schemes
from studio.session.session import Session
from tests.family_models import Made, changed, logits, reference, sharded, write_index
from tests.steps import finish

WITH_EXPERTS = ("mixtral", "qwen3_moe", "qwen3_next", "gpt_oss", "qwen3_vl_moe")


@pytest.mark.parametrize("family", WITH_EXPERTS)
def test_experts_are_packed_and_taken_out_one_by_one(made: Callable[[str], Made], family: str) -> None:
    one = made(family)
    experts = [layer for layer in one.checkpoint.layers if len(layer.shape) == 3 and layer.kind is Kind.LINEAR]
    assert {layer.name.rpartition(".")[2] for layer in experts} == {"gate_up_proj", "down_proj"}
    assert all(layer.transposed == (family == "gpt_oss") for layer in experts)
    assert all(
        layer.shape[-1] in (32, 64) and layer.matrix == (4 * layer.shape[1], layer.shape[2]) for layer in experts
    )
    model = load_compressed(one.folder)
    assert sum(isinstance(module, PackedStack) for module in model.modules()) == len(experts)
    assert slow_schemes(model)
    routers = [layer for layer in one.checkpoint.layers if layer.name.endswith((".gate.weight", ".router.weight"))]
    assert {layer.kind for layer in routers} == {Kind.OTHER}


@pytest.mark.parametrize("family", WITH_EXPERTS)
def test_rows_of_experts_are_read_across_their_tensors(made: Callable[[str], Made], family: str) -> None:
    checkpoint = made(family).checkpoint
    model = dict(reference(family, made(family).source).named_parameters())
    for layer in checkpoint.layers:
        if len(layer.shape) == 3 and layer.kind is Kind.LINEAR:
            name = layer.name if layer.name in model else layer.name.replace("model.", "model.language_model.")
            value = model[name].mT if layer.transposed else model[name]
            matrix = value.reshape(layer.matrix)
            rows = layer.matrix[0]
            for start, stop in ((0, rows), (5, 7), (layer.shape[1] - 3, layer.shape[1] + 9), (rows - 1, rows)):
                assert torch.equal(checkpoint.read(layer, start, stop), matrix[start:stop])
            stored = torch.cat(list(checkpoint.stored(layer))).reshape(layer.stored_shape)
            assert torch.equal(stored, model[name])


@pytest.mark.parametrize(
    "expert",
    [None, torch.ones(64, 16), torch.ones(64), torch.ones(0, 32), torch.ones(63, 32)],
    ids=["missing", "narrow", "flat", "empty", "short"],
)
def test_an_expert_that_is_not_like_the_others_is_named(copied: Callable[[str], Path], expert: Tensor | None) -> None:
    folder = copied("mixtral")
    name = next(n for n in load_file(folder / WEIGHTS) if n.endswith("experts.2.w1.weight"))
    changed(folder, **{name: expert})
    with pytest.raises(CheckpointError) as caught:
        of_folder(folder)
    assert caught.value.key == "tensor_mismatch"
    assert caught.value.values["tensor"] == "model.layers.0.mlp.experts.gate_up_proj"


def test_experts_spread_over_files_are_one(made: Callable[[str], Made], copied: Callable[[str], Path]) -> None:
    folder = copied("mixtral")
    write_index(folder, sharded(folder))
    assert torch.equal(logits(load_original(of_folder(folder))), logits(load_original(made("mixtral").checkpoint)))


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "bert"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_values_that_are_no_numbers_are_named(copied: Callable[[str], Path], family: str, value: float) -> None:
    folder = copied(family)
    layer = [layer for layer in of_folder(folder).layers if layer.kind is Kind.LINEAR][-1]
    tensor = load_file(folder / WEIGHTS)[layer.source]
    tensor.flatten()[-1] = value
    changed(folder, **{layer.source: tensor})
    session = Session(paths=True, workspace=folder / "workspace")
    finish(session.open(str(folder)))
    session.planner.choose(Choice.of("int4_asym", -1, 1, "int8_asym"))
    with pytest.raises(UserError) as caught:
        finish(session.compress())
    assert (caught.value.key, caught.value.values) == ("not_finite", {"tensor": layer.source})
