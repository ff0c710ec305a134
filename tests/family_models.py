"""Tiny random models of every family of models, as transformers saves them, and what they compute."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.file_names import INDEX, WEIGHTS
from studio.session.session import Session
from tests.conftest import tiny_tokenizer

BOUND = 0.03
"""Relative error of the logits of two models in bf16 that multiply in a different order."""

V = 320


TOKENS = {"vocab_size": V, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.1, **TOKENS,
}  # fmt: skip


HEADS = SHAPE | {"head_dim": 8}


BERT = {name: value for name, value in SHAPE.items() if name != "num_key_value_heads"}


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


LINEAR_ATTENTION = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip


EYES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
EYES |= {"image_size": 28, "patch_size": 14}


QWEN_EYES = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}


ROTATION = {"rope_type": "default", "rope_theta": 1e4}


CONFIGS: dict[str, Callable[[], Any]] = {
    "opt": lambda: tf.OPTConfig(
        hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, **TOKENS
    ),
    "llama": lambda: tf.LlamaConfig(**HEADS),
    "falcon": lambda: tf.FalconConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **TOKENS),
    "bloom": lambda: tf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **TOKENS),
    "mistral": lambda: tf.MistralConfig(**HEADS),
    "mixtral": lambda: tf.MixtralConfig(**HEADS, num_local_experts=4, num_experts_per_tok=2),
    "glm": lambda: tf.GlmConfig(**HEADS),
    "glm4": lambda: tf.Glm4Config(**HEADS),
    "stablelm": lambda: tf.StableLmConfig(**SHAPE),
    "gemma": lambda: tf.GemmaConfig(**HEADS),
    "gemma2": lambda: tf.Gemma2Config(**HEADS),
    "gemma3_text": lambda: tf.Gemma3TextConfig(**HEADS),
    "mamba": lambda: tf.MambaConfig(hidden_size=32, state_size=4, num_hidden_layers=2, **TOKENS),
    "qwen2": lambda: tf.Qwen2Config(**SHAPE),
    "qwen3": lambda: tf.Qwen3Config(**HEADS),
    "qwen3_moe": lambda: tf.Qwen3MoeConfig(**HEADS, **EXPERTS),
    "qwen3_next": lambda: tf.Qwen3NextConfig(
        **HEADS, **EXPERTS, **LINEAR_ATTENTION, shared_expert_intermediate_size=32
    ),
    "qwen3_5_text": lambda: tf.Qwen3_5TextConfig(**HEADS, **LINEAR_ATTENTION),
    "phi3": lambda: tf.Phi3Config(**SHAPE),
    "gpt2": lambda: tf.GPT2Config(n_embd=32, n_layer=2, n_head=4, **TOKENS),
    "gpt_oss": lambda: tf.GptOssConfig(**HEADS, num_local_experts=4, num_experts_per_tok=2),
    "gemma3": lambda: tf.Gemma3Config(
        text_config={**HEADS, "model_type": "gemma3_text"},
        vision_config={**EYES, "model_type": "siglip_vision_model"},
    ),
    "qwen2_5_vl": lambda: tf.Qwen2_5_VLConfig(
        text_config=SHAPE | {"rope_parameters": ROTATION | {"mrope_section": [1, 1, 2]}}, vision_config=QWEN_EYES
    ),
    "qwen3_vl_moe": lambda: tf.Qwen3VLMoeConfig(
        text_config={**HEADS, **EXPERTS, "rope_parameters": ROTATION | {"mrope_section": [2, 1, 1]}},
        vision_config=QWEN_EYES | {"deepstack_visual_indexes": [0]},
    ),
    "llava": lambda: tf.LlavaConfig(
        text_config={**HEADS, "model_type": "llama"}, vision_config={**EYES, "model_type": "clip_vision_model"}
    ),
    "bert": lambda: tf.BertConfig(**BERT),
    "t5": lambda: tf.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=V),
    "bart": lambda: tf.BartConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_ffn_dim=64, scale_embedding=True, **TOKENS,
    ),
}  # fmt: skip


READERS = ("bert", "t5", "bart")
"""Those that cannot chat."""


WITH_EYES = ("gemma3", "qwen2_5_vl", "qwen3_vl_moe", "llava")


def auto_class(family: str) -> Any:
    if family in WITH_EYES:
        return tf.AutoModelForImageTextToText
    if family in READERS:
        return tf.AutoModelForMaskedLM if family == "bert" else tf.AutoModelForSeq2SeqLM
    return tf.AutoModelForCausalLM


def save(family: str, folder: Path) -> Path:
    torch.manual_seed(0)
    auto_class(family).from_config(CONFIGS[family](), dtype=torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def reference(family: str, folder: Path) -> Any:
    """Return transformers' own model, in the precision and with the experts the studio runs it with."""
    model = auto_class(family).from_pretrained(
        folder, dtype=torch.bfloat16, local_files_only=True, experts_implementation="eager"
    )
    return model.eval()


@torch.inference_mode()
def logits(model: nn.Module) -> Tensor:
    ids = torch.randint(3, V, (1, 24), generator=torch.Generator().manual_seed(1))
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}  # type: ignore[union-attr]
    found: Tensor = model(ids, **more).logits
    return found[0].double()


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the relative error of the middle row: a router between two experts may go either way for a few tokens."""
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).median())


@dataclass(frozen=True)
class Made:
    """A tiny model and what compressing it left."""

    source: Path
    checkpoint: Checkpoint
    session: Session
    folder: Path


def changed(folder: Path, **tensors: Tensor | None) -> Path:
    """Replace tensors of a folder's file, or leave them out; a name's dots are written ``__``."""
    new = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in (load_file(folder / WEIGHTS) | new).items() if tensor is not None}
    save_file(kept, folder / WEIGHTS, {"format": "pt"})
    return folder


def sharded(folder: Path) -> dict[str, str]:
    """Spread a folder's tensors over two files and return the index's map."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / shard, {"format": "pt"})
    (folder / WEIGHTS).unlink()
    return {name: shard for shard, held in shards.items() for name in held}


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
