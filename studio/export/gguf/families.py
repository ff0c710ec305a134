"""What llama.cpp wants to know of a family of models, in its own words. Knows no weights and no tokens.

Source of keys and habits: llama.cpp's ``convert_hf_to_gguf.py`` and its loaders (``src/models``), read at b9000; what a
family's loader takes for granted is checked here, for a file cannot say it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from torch import Tensor

from studio.base.errors import ModelError


@dataclass(frozen=True)
class Family:
    """How one of transformers' families goes into a GGUF file."""

    arch: gguf.MODEL_ARCH
    permutes: bool = False
    """Whether rows of q and k lie in ggml's order: the two halves of each head interleaved."""
    norm_plus: float = 0.0
    """Added to the weights of norms, which llama.cpp multiplies with as they stand."""
    check: Callable[[Any], str | None] = lambda _: None
    """Returns the config's key that llama.cpp would pass by, None where there is none."""
    context: Callable[[Any], int] = lambda config: int(config.max_position_embeddings)
    """Returns how many tokens llama.cpp follows as the model does."""
    turns_part: bool = False
    """Whether part of a head may rotate; of the others llama.cpp ends at such a model."""
    more: Callable[[gguf.GGUFWriter, Any], None] = lambda *_: None
    """Writes what only this family has."""

    @property
    def name(self) -> str:
        return str(gguf.MODEL_ARCH_NAMES[self.arch])


def family_of(config: Any) -> Family:
    """Return the family of a config. Raises ModelError, by name, for one that is not there or has what it lacks."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ModelError("to_gguf_family", family=str(config.model_type)[:60], families=", ".join(FAMILIES))
    key = family.check(config) or _unknown_rotation(config)
    if key is None and not family.turns_part and rotating(config) != head_dim(config):
        key = "rope_parameters: partial_rotary_factor"
    if key is not None:
        raise ModelError("to_gguf_setting_unknown", family=config.model_type, key=key)
    return family


def head_dim(config: Any) -> int:
    """Return the width of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def write_numbers(writer: gguf.GGUFWriter, family: Family, config: Any) -> None:
    """Write a model's numbers as metadata."""
    width = head_dim(config)
    writer.add_context_length(family.context(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    family.more(writer, config)
    rope = main_rope(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_rope_dimension_count(rotating(config))
    _write_scaling(writer, config, rope)


def main_rope(config: Any) -> dict[str, Any]:
    """Return the rotation of a model's full attention, in transformers' words."""
    rope = dict(config.rope_parameters)
    nested = rope.get("full_attention")
    return dict(nested) if isinstance(nested, dict) else rope


def rotating(config: Any) -> int:
    """Return how many dimensions of a head rotate."""
    return int(head_dim(config) * main_rope(config).get("partial_rotary_factor", 1.0))


def _unknown_rotation(config: Any) -> str | None:
    """Return the key of a rotation that llama.cpp does not have, None where it has it."""
    rope = main_rope(config)
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "llama3", "linear", "yarn", "longrope"):
        return f"rope_parameters: {kind}"
    own = {"truncate": True, "beta_fast": 32, "beta_slow": 1} if kind == "yarn" else {}
    odd = [key for key, usual in own.items() if rope.get(key) not in (None, usual)]  # not read of any file
    return f"rope_parameters: {odd[0]}" if odd else None


def _write_scaling(writer: gguf.GGUFWriter, config: Any, rope: dict[str, Any]) -> None:
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
        scaled = _yarn_scale(rope)
        if scaled != 1:
            writer.add_rope_scaling_attn_factors(scaled)
    if kind == "longrope":
        original = int(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(original)
        stretch = config.max_position_embeddings / original
        usual = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
        writer.add_rope_scaling_attn_factors(float(rope.get("attention_factor") or usual))


def _yarn_scale(rope: dict[str, Any]) -> float:
    """Return by how much queries and keys are longer than llama.cpp makes them for a factor, which is YaRN's way.

    That is 0.1 ln(factor) + 1 (arXiv 2309.00071, equation 22); a config may name another, or DeepSeek's two.
    """

    def scale(by: float) -> float:
        return 0.1 * by * math.log(rope["factor"]) + 1.0 if rope["factor"] > 1 else 1.0

    named = rope.get("attention_factor")
    if named is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        named = scale(rope["mscale"]) / scale(rope["mscale_all_dim"])
    return 1.0 if named is None else float(named) / scale(1.0)


def rope_tensors(config: Any) -> dict[str, Tensor]:
    """Return the tensors that belong to the rotation, fp32 [rotating / 2], by llama.cpp's names."""
    rope = main_rope(config)
    kind = rope.get("rope_type", "default")
    if kind == "longrope":
        return {
            f"rope_factors_{name}.weight": torch.tensor(rope[f"{name}_factor"], dtype=torch.float32)
            for name in ("long", "short")
        }
    if kind != "llama3":
        return {}
    base, width = float(rope["rope_theta"]), rotating(config)
    plain = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    waves = 2 * math.pi / plain
    original = float(rope["original_max_position_embeddings"])
    low, high, factor = (float(rope[f"{name}factor"]) for name in ("low_freq_", "high_freq_", ""))
    smooth = ((original / waves - low) / (high - low)).clamp(0, 1)
    return {"rope_freqs.weight": (1 / ((1 - smooth) / factor + smooth)).float()}


# what a family's loader takes for granted


def _llama(config: Any) -> str | None:
    return "hidden_act" if config.hidden_act != "silu" else None


def _is_scaled_as_known(config: Any, largest: int) -> bool:
    """Return whether scores are divided as llama.cpp does, which knows the family's largest model by its layers."""
    usual = head_dim(config)
    if config.num_hidden_layers == largest:
        usual = config.hidden_size // config.num_attention_heads
    return bool(config.query_pre_attn_scalar == usual)


def _gemma2(config: Any) -> str | None:
    if not _is_scaled_as_known(config, 46):
        return "query_pre_attn_scalar"
    kinds = ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(config.num_hidden_layers)]
    return "layer_types" if list(config.layer_types) != kinds else None


def _gemma3(config: Any) -> str | None:
    kinds = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(config.num_hidden_layers)]
    if list(config.layer_types) != kinds:
        return "layer_types"
    if not _is_scaled_as_known(config, 62):
        return "query_pre_attn_scalar"
    if config.attn_logit_softcapping:
        return "attn_logit_softcapping"
    sliding = dict(config.rope_parameters["sliding_attention"])
    return "rope_local_base_freq" if sliding.get("rope_type", "default") != "default" else None


def _capped(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_sliding_window(config.sliding_window)
    if config.attn_logit_softcapping:
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _gemma3_more(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_sliding_window(config.sliding_window)
    writer.add_rope_freq_base_swa(float(config.rope_parameters["sliding_attention"]["rope_theta"]))
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _within_window(config: Any) -> int:
    """Return the length of the window where a layer has one: these families' loaders pass it by.

    Up to that many tokens nothing lies outside of it, and llama.cpp follows the model; of more it would see more.
    """
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    window = config.sliding_window if "sliding_attention" in kinds else None
    return int(min(config.max_position_embeddings, window or config.max_position_embeddings))


def _phi3_more(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_sliding_window(config.sliding_window or 0)


_ARCH = gguf.MODEL_ARCH
FAMILIES = {
    "llama": Family(_ARCH.LLAMA, permutes=True, check=_llama),
    "mistral": Family(_ARCH.LLAMA, permutes=True, check=_llama, context=_within_window),
    "qwen2": Family(_ARCH.QWEN2, check=_llama, context=_within_window),
    "qwen3": Family(_ARCH.QWEN3, check=_llama, context=_within_window),
    "phi3": Family(_ARCH.PHI3, check=_llama, context=_within_window, turns_part=True, more=_phi3_more),
    "gemma2": Family(_ARCH.GEMMA2, norm_plus=1.0, check=_gemma2, more=_capped),
    "gemma3_text": Family(_ARCH.GEMMA3, norm_plus=1.0, check=_gemma3, more=_gemma3_more),
}
"""By ``config.model_type``. A new one is a line here, and a tiny model of it in the tests."""
