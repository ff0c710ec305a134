"""Every type that gguf can dequantize opens, and what a tensor came as is told of the parameter that it became."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from studio.checkpoint.file_names import STORED
from studio.checkpoint.gguf.model import READABLE
from studio.checkpoint.gguf.tensors import in_16_bits
from tests.gguf_models import Written, converted

TYPES = sorted({kind.name for kind in gguf.quants._type_traits} | {"F16", "F32"})
FINITE = 0x3C
"""Bytes below it make no half float, and no exponent, that is not finite: sign and exponent below 1."""


def test_all_that_can_be_dequantized_is_readable() -> None:
    assert set(TYPES) == READABLE


@pytest.mark.parametrize("kind", TYPES)
def test_a_type_is_read_as_gguf_dequantizes_it(kind: str, tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path, hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    stored = GGMLQuantizationType[kind]
    block, nbytes = GGML_QUANT_SIZES[stored]
    name, parameter = "blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight"
    raw = np.random.default_rng(0).integers(0, FINITE, (256, 256 // block * nbytes), np.uint8)
    is_float = kind in ("F16", "F32")
    values = raw.view({"F16": np.float16, "F32": np.float32}[kind]) if is_float else raw
    written.arrays[name] = values.astype(np.float32) if is_float else values
    checkpoint = converted(written.file(kind=lambda each: kind if each == name else "F16"))
    expected = torch.from_numpy(np.array(dequantize(values if is_float else raw, stored), np.float32))
    layer = next(layer for layer in checkpoint.layers if layer.name == parameter)
    assert float(expected.abs().max()) > 0
    assert torch.equal(checkpoint.read(layer), in_16_bits(expected, kind))
    told = json.loads((checkpoint.path / STORED).read_text())
    assert told[parameter] == [kind, [256, 256], 256 * 256 // block * nbytes]
    assert told["model.layers.0.input_layernorm.weight"][0] == "F32"
    assert told.keys() == {layer.name for layer in checkpoint.layers}
