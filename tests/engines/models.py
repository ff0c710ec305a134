"""Tiny models of every family that GGUF files are written of, with a tokenizer each, and what their numbers compute."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from torch import Tensor

from studio.checkpoint.config import load_config
from studio.checkpoint.json_file import read_json
from studio.export import targets
from studio.export.compressed_model import opened
from studio.quantization.packing import PackedTensor
from studio.session.api import compress
from tests.engines import vocabularies
from tests.steps import finish

SHAPE = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
HEADS = SHAPE | {"head_dim": 16}
GEMMA = HEADS | {"query_pre_attn_scalar": 16, "sliding_window": 8}


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **more}}


LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
FACTORS = {"short_factor": [1.0 + 0.3 * i for i in range(8)], "long_factor": [2.0 + 0.5 * i for i in range(8)]}
TURNED = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
WINDOW = {"use_sliding_window": True, "sliding_window": 48, "max_window_layers": 1}


def longrope(original: int) -> dict[str, Any]:
    made = rope("longrope", original_max_position_embeddings=original, **FACTORS)
    return made | {"original_max_position_embeddings": original}


Made = Callable[..., Any]
FAMILIES: dict[str, tuple[str, Made, dict[str, Any]]] = {
    "llama": ("llama", tf.LlamaConfig, HEADS),
    "llama-llama3": ("llama-3", tf.LlamaConfig, HEADS | LLAMA3),
    "llama-biases": ("smollm", tf.LlamaConfig, HEADS | {"attention_bias": True, "mlp_bias": True}),
    "llama-tied": ("llama-metaspace", tf.LlamaConfig, HEADS | {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
    "llama-linear": ("gpt-2", tf.LlamaConfig, HEADS | rope("linear", factor=4.0)),
    "llama-yarn": ("gpt-2", tf.LlamaConfig, HEADS | rope("yarn", **YARN)),
    "llama-yarn-scaled": ("llama-3-merging", tf.LlamaConfig, HEADS | rope("yarn", **YARN, attention_factor=0.8)),
    "mistral": ("llama", tf.MistralConfig, HEADS | {"sliding_window": 48, "head_dim": 32}),
    "qwen2": ("qwen2", tf.Qwen2Config, SHAPE),
    "qwen2-window": ("qwen2", tf.Qwen2Config, SHAPE | WINDOW | {"tie_word_embeddings": True}),
    "qwen3": ("qwen2", tf.Qwen3Config, HEADS | {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3-yarn": ("qwen2", tf.Qwen3Config, HEADS | rope("yarn", **YARN)),
    "phi3": ("llama", tf.Phi3Config, SHAPE | {"sliding_window": 48}),
    "phi3-partial": (
        "smollm", tf.Phi3Config, SHAPE | {"hidden_size": 128} | rope("default", partial_rotary_factor=0.75),
    ),
    "phi3-longrope-short": ("llama", tf.Phi3Config, SHAPE | longrope(256) | {"max_position_embeddings": 512}),
    "phi3-longrope-long": ("llama", tf.Phi3Config, SHAPE | longrope(16)),
    "gemma2": (
        "gemma", tf.Gemma2Config, GEMMA | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3": ("gemma", tf.Gemma3TextConfig, GEMMA | {"num_hidden_layers": 7, "rope_parameters": TURNED}),
}  # fmt: skip
"""A name -> its tokenizer, and its config. Windows that llama.cpp has are of 8 tokens, much shorter than a text."""


@cache
def tokenizer(name: str) -> Any:
    """Return the tokenizer of a family."""
    return vocabularies.made(FAMILIES[name][0])


def ids(name: str, count: int = 41) -> list[int]:
    """Return a text's tokens: the first, and others from all over the vocabulary."""
    there = tokenizer(name)
    size = len(there)
    return [there.bos_token_id, *((i * 37) % (size - 20) + 10 for i in range(count - 1))]


def save(name: str, folder: Path, **more: Any) -> Path:
    """Save a family's tiny model, whose logits are as spread as a text's."""
    there, (_, config, settings) = tokenizer(name), FAMILIES[name]
    special = {f"{each}_token_id": getattr(there, f"{each}_token_id") for each in ("bos", "eos", "pad")}
    torch.manual_seed(0)
    made = config(**{**settings, **more, **special, "vocab_size": len(there)})
    model: Any = tf.AutoModelForCausalLM.from_config(made).float()
    with torch.no_grad():
        for key, values in model.named_parameters():
            if values.ndim > 1:
                is_tied = "embed" in key and model.config.tie_word_embeddings
                values.normal_(0, 0.15 if is_tied else 0.7 if "embed" in key else 1.2 / values.shape[-1] ** 0.5)
            else:
                values.add_(0.15 * torch.randn_like(values))
    model.to(torch.bfloat16).save_pretrained(folder)
    there.save_pretrained(folder)
    return folder


def written(source: Path, place: Path, **choices: Any) -> Path:
    """Compress a model into ``place`` and write its file beside it."""
    compress(str(source), place, **choices)
    return finish(targets.export(targets.target_named("gguf"), place, place.with_suffix(".gguf")))


@torch.inference_mode()
def truth(folder: Path, tokens: list[int]) -> Tensor:
    """Return the logits of transformers' model in fp32 with a compressed folder's numbers, [tokens, vocabulary]."""
    model: Any = tf.AutoModelForCausalLM.from_config(
        load_config(read_json(folder / "config.json")), attn_implementation="eager", dtype=torch.float32
    ).eval()
    numbers: dict[str, Tensor] = {}
    for a, tensor in opened(folder).tensors():
        values = (tensor.dequantize() if isinstance(tensor, PackedTensor) else tensor).float()
        numbers |= dict.fromkeys((a.layer.name, *a.layer.tied), values)
    missing = model.load_state_dict(numbers, strict=False).missing_keys
    assert set(missing) <= set(model.all_tied_weights_keys)
    found: Tensor = model(torch.tensor([tokens])).logits[0]
    return found
