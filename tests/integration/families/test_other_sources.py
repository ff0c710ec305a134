"""Sources that are quantized already, and models of older names."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.layers import Kind
from studio.planning.choice import Choice
from studio.runtime.model import load_compressed, load_original
from studio.session.session import Session
from tests.family_models import CONFIGS, Made, distance, logits
from tests.steps import finish

FP8 = {"quant_method": "fp8", "weight_block_size": [16, 16]}


def test_fp8_experts_and_projections_are_read(made: Callable[[str], Made], copied: Callable[[str], Path]) -> None:
    folder = copied("mixtral")
    tensors = load_file(folder / WEIGHTS)
    for name in [name for name in tensors if name.endswith("_proj.weight") or ".experts." in name]:
        rows, width = (size // 16 for size in tensors[name].shape)
        scale = torch.rand(rows, width) + 0.5
        wide = scale.repeat_interleave(16, 0).repeat_interleave(16, 1)
        quantized = (tensors[name].float() / wide).to(torch.float8_e4m3fn)
        tensors |= {name: quantized, f"{name}_scale_inv": scale}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": FP8}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = of_folder(folder)
    assert "F8_E4M3" in checkpoint.source_format
    assert distance(logits(load_original(checkpoint)), logits(load_original(made("mixtral").checkpoint))) < 0.3
    layer = next(layer for layer in checkpoint.layers if layer.name.endswith("gate_up_proj"))
    before = next(old for old in made("mixtral").checkpoint.layers if old.name == layer.name)
    assert distance(checkpoint.read(layer, 60, 140), made("mixtral").checkpoint.read(before, 60, 140)) < 0.05
    session = Session(paths=True, workspace=folder / "workspace")
    finish(session.open(str(folder)))
    session.planner.choose(Choice.of("int8_asym", -1, 1, "int8_asym"))
    finish(session.compress())
    assert session.copy.folder is not None
    exported = json.loads((session.copy.folder / "config.json").read_text())
    assert exported["quantization_config"] == {"quant_method": "quantization-studio"}
    assert distance(logits(load_compressed(session.copy.folder)), logits(load_original(checkpoint))) < 0.05
    session.close()


def test_mxfp4_experts_are_read(made: Callable[[str], Made], copied: Callable[[str], Path]) -> None:
    """Their file is output channels first, their parameter the other way round; K = N tells nothing."""
    folder = copied("gpt_oss")
    tensors = load_file(folder / WEIGHTS)
    values = {}
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, width, rows = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (experts, rows, width // 32, 16), dtype=torch.uint8)
        scales = torch.randint(120, 126, (experts, rows, width // 32), dtype=torch.uint8)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        values[name] = convert_moe_packed_tensors(blocks, scales)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = of_folder(folder)
    assert "MXFP4" in checkpoint.source_format
    parameters = dict(load_original(checkpoint).named_parameters())
    for name, value in values.items():
        assert torch.equal(parameters[name], value)
    layer = next(layer for layer in checkpoint.layers if layer.name.endswith("down_proj"))
    assert torch.equal(checkpoint.read(layer, 30, 70), values[layer.name].mT.reshape(layer.matrix)[30:70])
    session = Session(paths=True, workspace=folder / "workspace")
    finish(session.open(str(folder)))
    session.planner.choose(Choice.of("int8_asym", -1, 1, "int8_asym"))
    finish(session.compress())
    assert session.copy.folder is not None
    assert distance(logits(load_compressed(session.copy.folder)), logits(load_original(checkpoint))) < 0.05
    session.close()


def test_the_first_names_of_bert_are_found(made: Callable[[str], Made], copied: Callable[[str], Path]) -> None:
    folder = copied("bert")
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(folder / WEIGHTS).items()
    }
    tensors |= {"bert.pooler.dense.weight": torch.ones(32, 32), "cls.seq_relationship.bias": torch.ones(2)}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    assert torch.equal(logits(load_original(of_folder(folder))), logits(load_original(made("bert").checkpoint)))


def test_an_encoder_without_a_head_is_one(tmp_path: Path) -> None:
    """As those that make embeddings are."""
    torch.manual_seed(0)
    tf.BertModel(CONFIGS["bert"]()).save_pretrained(tmp_path)
    checkpoint = of_folder(tmp_path)
    assert not checkpoint.can_chat
    assert {layer.kind for layer in checkpoint.layers} == {Kind.EMBEDDING, Kind.LINEAR, Kind.OTHER}
    ids = torch.tensor([[3, 4, 5]])
    with torch.inference_mode():
        found = load_original(checkpoint)(ids).last_hidden_state
        expected = tf.BertModel.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()(ids).last_hidden_state
    assert torch.equal(found, expected)
