"""A tiny model of every family of transformers: its config shrunk, its weights random. Knows nothing of the studio.

Sizes are set by the names that configs give them; lists with an item for every layer keep one layer of each kind. What
a family needs beside that stands in :data:`SETTINGS`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

VOCABULARY = 320
HIDDEN = 32
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    "image_token_id": 3, "video_token_id": 4, "audio_token_id": 5,
    "hidden_size": HIDDEN, "d_model": HIDDEN, "n_embd": HIDDEN, "emb_dim": HIDDEN, "word_embed_proj_dim": HIDDEN,
    "embedding_size": HIDDEN,
    "intermediate_size": 64, "ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_ffn_dim": 64, "n_inner": 64, "d_inner": 64,
    "ffn_hidden_size": 64, "dense_intermediate_size": 64, "feed_forward_size": 64, "dim_ff": 64,
    "intermediate_size_mlp": 64,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "shared_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32, "expert_ffn_hidden_size": 32,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "decoder_layers": 2, "encoder_layers": 2,
    "num_decoder_layers": 2, "num_encoder_layers": 2, "num_blocks": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "decoder_attention_heads": 4,
    "encoder_attention_heads": 4, "num_decoder_attention_heads": 4, "num_encoder_attention_heads": 4,
    "attention_heads": 4,
    "num_key_value_heads": 2, "num_kv_heads": 2, "head_dim": 16,
    "max_position_embeddings": 512, "n_positions": 512, "max_seq_len": 512, "n_ctx": 512, "context_length": 512,
    "max_target_positions": 512, "max_source_positions": 64, "model_max_length": 512,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "moe_topk": 2, "moe_k": 2, "top_k_experts": 2, "n_group": 1, "topk_group": 1, "num_expert_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "qk_head_dim": 16,
    "sliding_window": 24, "sliding_window_size": 24, "attention_window_size": 24, "window_size": 24,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16,
    "rotary_dim": 8, "index_topk": 64,
    "adapter_in_dim": HIDDEN, "adapter_input_size": HIDDEN, "adapter_out_dim": HIDDEN,
    "state_size": 8, "chunk_size": 16, "time_step_rank": 4,
}  # fmt: skip
"""A config's key -> its size here."""

UNSET = ("head_dim", "num_key_value_heads", "bos_token_id", "eos_token_id", "pad_token_id")
"""Keys that are set where the default config leaves them open."""

HYBRID = ["linear_attention", "full_attention", "linear_attention"]
WINDOWED = ["sliding_attention", "full_attention"]
SETTINGS: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"num_experts_per_token": 2},
    "bamba": {"num_hidden_layers": 3, "attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": WINDOWED,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in WINDOWED},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dory": {"num_hidden_layers": 3, "n_input_layers": 1, "n_output_layers": 1, "n_recurrent_layers": 1},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_text": {"head_dim": 16, "shared_experts_intermediate_size": 32, "per_layer_config": {}},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_hidden_layers": 3, "layer_types": [*WINDOWED, "full_attention"], "num_kv_shared_layers": 1,
        "intermediate_size": [64, 64, 64], "activation_sparsity_pattern": [0.5, 0.0, 0.0],
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY,
    },
    "gemma4_text": {
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY,
        "per_layer_config": {"1": {"head_dim": 32}},
    },
    "granitemoehybrid": {"num_hidden_layers": 3, "layer_types": HYBRID},
    "helium": {"head_dim": 8},
    "inkling2_text": {"unpadded_vocab_size": VOCABULARY},
    "inkling2_loop_text": {"unpadded_vocab_size": VOCABULARY},
    "jamba": {"num_hidden_layers": 3, "attn_layer_period": 3, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "kimi_linear": {"num_experts_per_token": 2, "linear_head_dim": 8, "linear_num_heads": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"head_dim": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "minimax": {"num_hidden_layers": 3, "layer_types": HYBRID, "block_size": 32},
    "moshi": {"sliding_window": 512},  # transformers' cache forgets what lies behind it, its mask does not
    "qwen4_exp_text": {
        "hc_lowrank": 8, "ngram_vocab_size_base": 64, "split_ngram_parts": 2, "make_ngram_vocab_size_divisible_by": 8,
        "ple_embed_dim": 8, "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "qwen2_vl_vision": {"depth": 2, "embed_dim": HIDDEN},  # else 657 million weights, of which none is read
    "qwen2_vl_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
    "qwen2_5_vl_text": {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "mrope_section": [1, 1, 2], "factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "qwen3_vl_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}},
    "qwen3_vl_moe_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": HIDDEN},
    "roc_bert": {
        "pronunciation_embed_dim": 16, "shape_embed_dim": 16, "shape_vocab_size": 64, "pronunciation_vocab_size": 64,
    },
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_hidden_layers": 2, "num_blocks": 2, "num_heads": 2},
    "xmod": {"default_language": "en_XX"},
    "youtu": {"pad_token_id": None},  # whose row transformers sets to zero while it loads
    "zamba": {"num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 1},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
"""What a family's config needs beside :data:`SIZES`."""


def config(family: str, **changes: Any) -> Any:
    """Return the config of a family's tiny model."""
    return CONFIG_MAPPING[family](**_shrunk(CONFIG_MAPPING[family], SETTINGS.get(family, {}) | changes))


def _shrunk(kind: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what to make a config of: its default's keys where they have a size here, and the settings."""
    default = kind()
    own = default.to_dict()
    sizes = {key: size for key, size in SIZES.items() if own.get(key) is not None or (key in own and key in UNSET)}
    if own.get("kv_lora_rank"):
        sizes["num_key_value_heads"] = SIZES["num_attention_heads"]
        sizes.pop("head_dim", None)  # of what rotates, which such a config finds itself
    layers = next((own[key] for key in ("num_hidden_layers", "num_layers") if own.get(key)), None)
    per_layer = {key: value for key, value in own.items() if isinstance(value, list) and len(value) == layers}
    if own.get("is_decoder") is False:
        sizes["is_decoder"] = True
    if "num_hidden_layers" in settings:
        per_layer = {}
        sizes |= {key: None for key in ("layer_types", "layers_block_type") if key in own}
    chosen = _each_kind(list(zip(*per_layer.values(), strict=True))) if per_layer else []
    if chosen:
        sizes |= {key: [value[index] for index in chosen] for key, value in per_layer.items()}
        sizes |= {key: len(chosen) for key in ("num_hidden_layers", "num_layers") if own.get(key)}
    for key in getattr(kind, "sub_configs", {}):
        if getattr(default, key, None) is not None and key not in settings:
            found = getattr(default, key)
            sizes[key] = _shrunk(type(found), SETTINGS.get(found.model_type, {})) | {"model_type": found.model_type}
    return sizes | settings


def _each_kind(layers: list[Any]) -> list[int]:
    """Return the indices of one layer of every kind, of at least two layers."""
    first = {str(layer): index for index, layer in reversed(list(enumerate(layers)))}
    found = sorted(first.values())[:5]
    return found if len(found) > 1 else [0, 1]


def shaken(model: nn.Module, gain: float = 1.2) -> nn.Module:
    """Give a model weights large enough that every part matters to its logits."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if any(part in name for part in ("A_log", "dt_bias", ".D", "e_score", "sinks", "time_")):
                weight.add_(0.1 * noise)
            elif "embed" in name:
                weight.copy_(0.7 * noise)
            elif weight.ndim >= 2:
                weight.copy_(noise * gain / max(1, weight.shape[-1]) ** 0.5)
            elif "bias" in name:
                weight.copy_(0.2 * noise)
            else:
                weight.add_(0.15 * noise)
    return model


def model(family: str, **changes: Any) -> Any:
    """Return a family's tiny model, random, in fp32."""
    torch.manual_seed(0)
    made = config(family, **changes)
    has_eyes = hasattr(made, "text_config") and made.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    of_kind = AutoModelForImageTextToText if has_eyes else AutoModelForCausalLM
    return shaken(of_kind.from_config(made, dtype=torch.float32))


def save(family: str, folder: Path, **changes: Any) -> Any:
    """Save a family's tiny model in bf16, as transformers lays it out; return it as transformers reads it, in fp32."""
    made = model(family, **changes)
    made.to(torch.bfloat16).save_pretrained(folder)
    return loaded(made, folder)


def loaded(made: nn.Module, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Return a saved model as transformers reads it."""
    return type(made).from_pretrained(folder, dtype=dtype).eval()  # type: ignore[attr-defined]


def save_as_part(family: str, folder: Path) -> Any:
    """Save the text part of a family that also sees or hears under the names it has there; return it alone.

    For those whose other parts cannot be built small, or not without more packages.
    """
    whole = CONFIG_MAPPING[family]()
    text = whole.text_config.model_type
    made = save(text, folder)
    tensors = {
        f"model.language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name: tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = whole.to_dict() | {"text_config": config(text).to_dict()}
    (folder / "config.json").write_text(json.dumps(settings, default=str))
    return made
