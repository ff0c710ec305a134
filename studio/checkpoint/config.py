"""A repository's ``config.json``, which anyone may have written, made into transformers' config. Runs none of its code.

Knows what kind of model it is (decoder, encoder, both) and which part of one that also sees or hears is text; knows
nothing of tensors.
"""

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from studio.base.errors import ModelError
from studio.checkpoint.config_values import check_heads, check_values, refused
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.json_file import check_depth
from studio.checkpoint.packed import mlx
from studio.checkpoint.packed.formats import quantization_of
from studio.checkpoint.source_formats import is_readable

IGNORED_KEYS = frozenset(
    {"attn_implementation", "attn_implementation_internal", "experts_implementation", "experts_implementation_internal"}
    | {"num_labels", "id2label", "label2id"}
    | {"pretraining_tp", "slow_but_exact"}
    | {"attribute_map", "sub_configs", "base_model_tp_plan", "base_model_pp_plan", "keys_to_ignore_at_inference"}
)
"""What a config may not say: the first can name code on the Hub; labels, which no decoder has, can be millions; the
next compute the same numbers in slices of a weight, which a packed one does not have; the last are the class's own."""

INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}

QUANTIZATION = "quantization_config"
PACKED_BY_STUDIO = {"quant_method": "quantization-studio"}
"""What an export's config says of its weights, so that a program that looks there (vLLM, llama.cpp's converter) refuses
them by name."""
NOT_EXPORTED = frozenset({QUANTIZATION, mlx.KEY, "transformers_weights", "auto_map"})
"""What the original's config says and an export's may not: how its weights were packed, in which file transformers is
to find them, whose code reads them."""

TEXT_TWINS: dict[str, dict[str, Any]] = {
    "qwen2_vl_text": {"model_type": "qwen2"},
    "qwen2_5_vl_text": {"model_type": "qwen2"},
    "qwen3_vl_text": {"model_type": "qwen3"},
    "qwen3_vl_moe_text": {"model_type": "qwen3_moe", "norm_topk_prob": True},
}
"""Text parts without a language model of their own in transformers -> the one they are: on text alone the three
positions of their rotation are one and the same."""
REFUSED = {
    "xlnet": "reads_both_ways",
    "cpmant": "reads_both_ways",
    "reformer": "answers_vary",
    "prophetnet": "length_changes_answers",
    "gemma4_assistant": "needs_other_model",
    "gemma4_unified_assistant": "needs_other_model",
    "musicgen": "writes_no_text",
    "musicgen_melody": "writes_no_text",
    "blt": "reads_patches",
    "emu3": "needs_its_pictures",
}
"""Families that transformers names as language models and that cannot answer here -> why."""


class Task(StrEnum):
    """What a model does with text, which decides transformers' class for it."""

    DECODER = "decoder"
    """Writes the next token: the only kind that can chat."""
    ENCODER = "encoder"
    ENCODER_DECODER = "encoder_decoder"
    BARE = "bare"
    """An encoder without a head, such as one that makes embeddings."""


def load_config(config: Mapping[str, Any]) -> Any:
    """Return transformers' config object for a ``config.json``; of a model that also sees or hears, its text part's.

    Raises ModelError for an architecture that transformers does not know by itself as a language model, one that cannot
    answer here, or weights quantized in a way that cannot be read; CheckpointError for a config that makes no sense.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = str(config.get("model_type", ""))
    if kind not in CONFIG_MAPPING:
        reason = "needs_remote_code" if "auto_map" in config or kind == "chatglm" else "unknown_architecture"
        raise ModelError(reason, architecture=kind[:40] or "?")
    if kind in REFUSED:
        raise ModelError(REFUSED[kind], architecture=kind)
    quantization = quantization_of(config)
    if quantization not in (None, PACKED_BY_STUDIO) and not is_readable(quantization):
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise ModelError("already_quantized", method=str(method)[:40])
    check_depth(CONFIG, config)
    kinds = CONFIG_MAPPING[kind]
    # transformers makes every key an attribute, also one that is called as its own methods are.
    allowed = {k: v for k, v in _allowed(config).items() if not callable(getattr(kinds, k, None))}
    check_values(allowed)
    try:
        whole = kinds.from_dict(allowed)
        part = _text_part(whole)
        known = part is not None or _task(whole) is not None
        reads_both_ways = part is None and _task(whole) is Task.DECODER and getattr(whole, "is_decoder", 1) is False
        check_heads(whole if part is None else part)
    except ImportError as error:  # of models of pictures, which need a library that no language model does
        raise ModelError("unknown_architecture", architecture=kind[:40]) from error
    except Exception as error:  # whatever a hostile or broken config makes transformers raise
        raise refused(error, allowed) from error
    if reads_both_ways:
        raise ModelError("reads_both_ways", architecture=kind)
    if not known:
        raise ModelError("unknown_architecture", architecture=kind[:40])
    return whole if part is None else part


def task(config: Any) -> Task:
    """Return what a config of :func:`load_config` is for."""
    return _task(config) or Task.BARE


def check_can_chat(config: Any) -> None:
    """Raise ModelError for the config of a model that writes no text."""
    if task(config) is not Task.DECODER:
        raise ModelError("cannot_chat", architecture=config.model_type)


def has_other_parts(config: Mapping[str, Any]) -> bool:
    """Return whether the model of a ``config.json`` has more parts than the text one that :func:`load_config` takes."""
    return bool(load_config(config).model_type != config.get("model_type"))


def exported_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``config.json`` to go with packed weights of the text part."""
    part: Mapping[str, Any] = json.loads(load_config(config).to_json_string()) if has_other_parts(config) else config
    return {key: value for key, value in part.items() if key not in NOT_EXPORTED} | {QUANTIZATION: PACKED_BY_STUDIO}


def _allowed(value: Any) -> Any:
    """Return a config without what it may not say, at any depth."""
    if isinstance(value, Mapping):
        if value.keys() == {"__float__"}:  # how transformers writes what JSON has no number for
            return INFINITE.get(value["__float__"], value) if isinstance(value["__float__"], str) else value
        kept = {
            k: v for k, v in value.items() if k.lstrip("_") not in IGNORED_KEYS | {QUANTIZATION, mlx.KEY, "auto_map"}
        }
        return {k: _allowed(v) for k, v in kept.items()}
    if isinstance(value, list):
        return [_allowed(each) for each in value]
    return value


def _task(config: Any) -> Task | None:
    """Return what a config is for, None where transformers has no language model for it."""
    from transformers.models.auto import modeling_auto as auto

    kind = config.model_type
    if config.is_encoder_decoder:
        known = kind in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
        return Task.ENCODER_DECODER if known else None
    if kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        saved_as = (config.architectures or [""])[0]
        return Task.BARE if saved_as == auto.MODEL_MAPPING_NAMES.get(kind) else Task.ENCODER
    return Task.DECODER if kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None


def _text_part(config: Any) -> Any:
    """Return the config of a model's text part as a language model of its own, None if that is all it is."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    text = getattr(config, "text_config", None)
    if text is None or config.is_encoder_decoder or getattr(text, "is_encoder_decoder", False):
        return None
    if text.model_type in TEXT_TWINS:
        twin = TEXT_TWINS[text.model_type]
        settings = text.to_dict() | {"rope_parameters": _plain_rotation(text)} | twin
        text = CONFIG_MAPPING[twin["model_type"]].from_dict(settings)
    if _task(text) is not Task.DECODER:
        return None
    tied = getattr(config, "tie_word_embeddings", None)  # the wrapper's word holds: the head is its own
    if tied is not None:
        text.tie_word_embeddings = tied
    text.architectures = None
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(text, key, None) is None:
            setattr(text, key, getattr(config, key, None))
    return text


def _plain_rotation(text: Any) -> dict[str, Any]:
    """Return the settings of a rotation without its sections for time, height and width; what stretches it stays."""
    settings = dict(getattr(text, "rope_parameters", None) or {})
    kind = settings.get("rope_type", "default")
    plain = {key: value for key, value in settings.items() if not key.startswith("mrope") and key != "type"}
    return plain | {"rope_type": "default" if kind == "mrope" else kind}
