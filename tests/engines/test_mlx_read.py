"""What MLX itself packs, read here: the numbers of its own ``dequantize``, bit for bit."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.packed.mlx import BITS, GROUP_SIZES
from tests.conftest import save_tiny_model

pytestmark = pytest.mark.skipif(find_spec("mlx") is None, reason="needs mlx[cpu], as requirements-dev.txt has it")


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("bits", BITS)
def test_the_numbers_are_those_of_mlx(bits: int, group_size: int, tmp_path: Path) -> None:
    import mlx.core as mx

    save_tiny_model("llama", tmp_path, hidden_size=128, intermediate_size=256)
    file = tmp_path / "model.safetensors"
    tensors, expected = dict[str, mx.array](), dict[str, torch.Tensor]()
    for name, tensor in load_file(file).items():
        value = mx.array(tensor.float().numpy())
        if not name.endswith(("_proj.weight", "embed_tokens.weight")):
            tensors[name] = value.astype(mx.float16)
            continue
        module = name.removesuffix(".weight")
        codes, scales, biases = mx.quantize(value.astype(mx.float16), group_size=group_size, bits=bits)
        tensors |= {name: codes, f"{module}.scales": scales, f"{module}.biases": biases}
        wide = mx.dequantize(
            codes, scales.astype(mx.float32), biases.astype(mx.float32), group_size=group_size, bits=bits
        )
        expected[name] = torch.from_numpy(np.array(wide))
    mx.save_safetensors(str(file), tensors, {"format": "mlx"})
    config = json.loads((tmp_path / "config.json").read_text())
    said = {"group_size": group_size, "bits": bits, "mode": "affine"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization": said, "quantization_config": said}))
    checkpoint = of_folder(tmp_path)
    layers = {layer.name: layer for layer in checkpoint.layers}
    assert expected.keys() <= layers.keys()
    for name, truth in expected.items():
        assert torch.equal(checkpoint.read(layers[name]), truth), name
