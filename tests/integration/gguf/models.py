"""Tiny compressed models of every family that GGUF files are written of, and what their numbers compute in fp32."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio.checkpoint.open_model import open_model
from studio.compression.compress import compress
from studio.export import write_folder
from studio.export.compressed_model import opened
from studio.planning.choice import Choice, Pin
from studio.planning.plan import make_plan
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Mode, Scheme
from tests.conftest import tiny_tokenizer
from tests.families import tiny
from tests.steps import finish

TEXT = torch.arange(3, 103)[None]
SHAPE = {
    "vocab_size": len(tiny_tokenizer()), "hidden_size": 256, "intermediate_size": 512, "head_dim": 32,
    "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
PLAIN = {name: value for name, value in SHAPE.items() if name != "head_dim"}
WINDOW = {"sliding_window": 24}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 512,
    "short_factor": [1.0 + 0.1 * i for i in range(16)], "long_factor": [2.0 + 0.2 * i for i in range(16)],
}  # fmt: skip
ROTATIONS = {
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128},
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SHAPE),
    "llama-tied": ("llama", SHAPE | {"tie_word_embeddings": True}),
    "llama-llama3": ("llama", SHAPE | {"rope_parameters": LLAMA3}),
    "llama-linear": ("llama", SHAPE | {"rope_parameters": ROTATIONS["linear"]}),
    "llama-yarn": ("llama", SHAPE | {"rope_parameters": ROTATIONS["yarn"]}),
    "llama-yarn-scaled": ("llama", SHAPE | {"rope_parameters": ROTATIONS["yarn"] | {"attention_factor": 0.8}}),
    "llama-biases": ("llama", SHAPE | {"attention_bias": True}),
    "llama-heads": ("llama", SHAPE | {"head_dim": 64, "num_key_value_heads": 8}),
    "mistral": ("mistral", SHAPE | {"sliding_window": None}),
    "mistral-window": ("mistral", SHAPE | {"sliding_window": 128}),
    "qwen2": ("qwen2", PLAIN),
    "qwen2-tied": ("qwen2", PLAIN | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", SHAPE),
    "phi3": ("phi3", PLAIN | {"sliding_window": None}),
    "phi3-longrope": (
        "phi3",
        PLAIN | {"sliding_window": None, "original_max_position_embeddings": 512, "rope_parameters": LONG},
    ),
    "gemma2": ("gemma2", SHAPE | WINDOW | {"query_pre_attn_scalar": 32, "layer_types": None, "num_hidden_layers": 2}),
    "gemma3_text": (
        "gemma3_text",
        SHAPE | WINDOW | {"query_pre_attn_scalar": 32, "layer_types": None, "num_hidden_layers": 6},
    ),
}
"""A name -> family and settings. Every family of the table is there, and what makes each one's tensors its own."""

MIXED = Choice(
    Mode.Q4_K,
    32,
    backup=Mode.Q8_0,
    pins=(
        Pin("*.0.*o_proj", None),
        Pin("*down_proj", Scheme.of(Mode.Q6_K, 32)),
        Pin("*.1.*k_proj", Scheme.of(Mode.Q8_0, 32)),
        Pin("*.1.*qkv_proj", Scheme.of(Mode.Q5_K, 32)),
    ),
)
"""K-quants of three kinds, Q8_0, and a weight that is kept."""
OURS = Choice.of("int4_sym", 32, 1.0, "none", pins=["*down_proj=int5_sym-g32"])
"""Formats that are not named as llama.cpp names them, and are two of its own."""


def save(case: str, folder: Path, **more: Any) -> Path:
    """Save a case's model with a tokenizer."""
    family, settings = CASES[case]
    tiny.save(family, folder, **settings, **more)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def packed(source: Path, to: Path, choice: Choice = MIXED) -> Path:
    """Compress a saved model into ``to``, which is not there yet."""
    checkpoint = finish(open_model(str(source), True))
    made = finish(compress(checkpoint, make_plan(checkpoint.layers, choice), to.with_name(f"{to.name}-weights")))
    return write_folder(checkpoint, made, to)


def numbers(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a compressed folder as the numbers that it stands for, fp32, by name."""
    return {
        a.layer.name: (held.dequantize() if isinstance(held, PackedTensor) else held).float()
        for a, held in opened(folder).tensors()
    }


def computed(source: Path, values: dict[str, Tensor] | None = None) -> Tensor:
    """Return the centred logits in fp32 of transformers' model in a folder, with ``values`` for its weights."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in (values or {}).items():
            parameters[name].copy_(value.reshape(parameters[name].shape))
        found: Tensor = model(input_ids=TEXT).logits
    return found - found.mean(-1, keepdim=True)


def edited(folder: Path, file: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change a JSON file of a folder."""
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return folder
