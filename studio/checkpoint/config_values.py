"""What the values of a ``config.json`` may be, told by their keys. Knows no family of models and builds nothing.

transformers checks the types of the keys that a family declares, and no range of any: a negative width, four key heads
for two, a rotation a million times as wide as its head. Each is found here and named, before tables of its size fill
the memory or compiled code divides by it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from studio.base.errors import CheckpointError, ResourceError, UserError, is_out_of_memory
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.json_file import check_depth

MAX_SIZE = 1 << 24
"""No width, vocabulary or number of positions is larger; tables for one that claims to be would fill the memory."""
MAX_INTEGER = 1 << 26
"""No other whole number is larger, but for rotations' bases."""
MAX_LAYERS = 1000
"""Eight times those of the deepest models: more take minutes to build, and no page can show them."""
EXPERTS_IN_A_TABLE = frozenset({"doge"})
"""Families whose experts are rows of one tensor, tens of thousands of them."""
MAX_EXPERTS = 1 << 12
"""Experts of one block, at most: each can be a few modules."""
MAX_HEAD = 1 << 13
MAX_HEADS = 1 << 14
MAX_VALUES = 20_000
"""transformers copies and checks a config many times over; the longest have lists of a few per layer."""
MAX_REASON = 200
"""Characters of what transformers says."""
MAX_WORDS = 60
"""Characters of a value that is shown."""

LAYER_COUNTS = (
    "num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "num_decoder_layers",
)  # fmt: skip
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads")
WIDTHS = (
    "hidden_size", "n_embd", "d_model", "vocab_size", "max_position_embeddings", "n_positions", "n_ctx", "d_ff",
    "intermediate_size", "moe_intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim",
)  # fmt: skip
HEAD_WIDTHS = ("head_dim", "d_kv", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "attention_head_size")
LARGEST: dict[str, int] = (
    dict.fromkeys(LAYER_COUNTS, MAX_LAYERS)
    | dict.fromkeys((*HEADS, "num_key_value_heads", "num_kv_heads"), MAX_HEADS)
    | dict.fromkeys(WIDTHS, MAX_SIZE)
    | dict.fromkeys(HEAD_WIDTHS, MAX_HEAD)
)
"""Keys of whole numbers that begin at 1 -> the largest. A list of them is as good, null stands for a default."""
MAY_BE_ZERO = frozenset(
    {"intermediate_size", "moe_intermediate_size", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "head_dim"}
)
"""What some families leave at zero where a layer has none of it."""

COUNTED = ("_window", "_size", "_dim", "_heads", "_layers", "_rank", "_experts", "_per_tok")
"""Ends of other keys of a whole number. Some words are flags, ``use_sliding_window``."""

SHARES = frozenset({"partial_rotary_factor", "rotary_pct", "rope_percent"})
"""Keys of a number from 0 to 1: how much of a head is rotated."""
POSITIVE = frozenset(
    {"rope_theta", "rotary_emb_base", "rope_local_base_freq", "factor", "original_max_position_embeddings"}
    | {"low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"}
    | {"query_pre_attn_scalar", "logits_scaling", "logits_mup_width_multiplier", "dim_model_base"}
    | {"decoder_sparse_step", "log_scaling_n_floor"}
)
"""Keys of a finite number above 0: what is divided by, or raised to a power."""
DIVISORS = ("softcapping", "softcap", "soft_cap", "logit_cap", "_theta")
"""Ends of more of them: bounds that logits are divided by, bases of rotations. Null stands for none."""
ZERO_IS_NONE = frozenset({"moe_router_logit_softcapping"})
"""Of these, the keys whose 0 a family takes for none."""
LARGEST_FACTOR = 1e12
FACTORS = (
    "_multiplier", "_multipliers", "_scaling_factor", "_alpha_factor", "_beta_factor", "_scale", "scale_emb",
    "scale_depth",
)  # fmt: skip
"""Ends of keys of what is only multiplied by: any finite number but one beyond all use."""
NUMBERS = frozenset({"attention_factor", "mscale", "mscale_all_dim", "long_factor", "short_factor"})
"""Keys of a finite number."""
SMALL = ("_eps", "_epsilon")
"""Ends of keys of a finite number from 0 to 1."""
MAY_BE_INFINITE = ("time_step", "dt_", "limit", "clamp", "max")
"""Parts of keys of a bound that may be none."""
NAMES = frozenset({"model_type", "architectures", "transformers_version", "text_config.model_type"})
"""Keys of words that transformers may well say for another reason."""
ROPE = frozenset({"rope_parameters", "rope_scaling"})


def check_values(config: Mapping[str, Any]) -> None:
    """Raise CheckpointError("wrong_config_value") for the first value that no model can have, with its key.

    ``config`` is what ``config.json`` holds, without the keys that are not used.
    """
    check_depth(CONFIG, config)
    _check_groups(config.get("num_attention_heads"), config.get("num_key_value_heads"))
    for count, (key, value) in enumerate(_values(config, "")):
        if count >= MAX_VALUES:
            raise CheckpointError("too_many_values", file=CONFIG, limit=MAX_VALUES)
        if isinstance(value, Mapping):
            _check_groups(value.get("num_attention_heads"), value.get("num_key_value_heads"))
        name, is_item, _ = key.rpartition(".")[2].partition("[")
        is_word = bool(is_item) and isinstance(value, str) and name not in LARGEST  # GPT-Neo's attention_layers
        expected = "" if is_word else _expected(name, value)
        if expected:
            raise bad_value(key, value, expected)


def check_heads(config: Any) -> None:
    """Raise CheckpointError where the heads of transformers' config do not go with each other or their rotation."""
    layers: tuple[Any, ...] = (config,)
    if not _whole(config, "num_key_value_heads") or not _whole(config, "num_attention_heads"):
        with suppress(Exception):  # where layers differ, each has a config of its own
            layers = tuple(config.per_layer_config)
    for layer in layers:
        _check_heads(layer)


def _check_heads(config: Any) -> None:
    heads, kv_heads = _whole(config, "num_attention_heads"), _whole(config, "num_key_value_heads")
    _check_groups(heads, kv_heads)
    width, head_dim = _whole(config, "hidden_size"), _whole(config, "head_dim")
    if heads and width and not head_dim and heads > width:
        raise bad_pair("num_attention_heads", heads, "hidden_size", width)
    rope = _known(config, "rope_parameters")
    if not isinstance(rope, Mapping) or "rope_theta" not in rope or not heads:
        return
    share = rope.get("partial_rotary_factor") or _known(config, "partial_rotary_factor") or 1
    key, size = ("head_dim", head_dim) if head_dim else ("hidden_size", width)
    rotated = int((head_dim or width // heads) * share)
    if rotated % 2:  # numbers are turned in pairs
        other = ("partial_rotary_factor", share) if head_dim else ("num_attention_heads", heads)
        raise bad_pair(key, size, *other)
    for name in ("long_factor", "short_factor"):
        factors = rope.get(name)
        if isinstance(factors, list) and len(factors) != rotated // 2:
            raise bad_pair(f"rope_parameters.{name}", factors, key, size)


def _check_groups(heads: Any, kv_heads: Any) -> None:
    """Raise CheckpointError where heads cannot share key heads evenly; what is no whole number is found elsewhere."""
    if type(heads) is type(kv_heads) is int and heads > 0 and kv_heads > 0 and heads % kv_heads:
        raise bad_pair("num_key_value_heads", kv_heads, "num_attention_heads", heads)


def check_counts(config: Any, tensors: int) -> None:
    """Raise CheckpointError for more layers than tensors, or experts beyond counting: to build them takes forever."""
    counts = {key: value for key, value in config.to_dict().items() if type(value) is int}
    counts |= {name: value for name in LAYER_COUNTS if (value := _whole(config, name))}
    for key, value in counts.items():
        if key in LAYER_COUNTS and value > min(tensors, MAX_LAYERS):
            raise CheckpointError(
                "too_many_layers", file=CONFIG, key=key, value=value, tensors=tensors, limit=MAX_LAYERS
            )
        if "experts" in key and value > MAX_EXPERTS and config.model_type not in EXPERTS_IN_A_TABLE:
            raise bad_value(key, value, f"≤ {MAX_EXPERTS}")


def bad_value(key: str, value: object, expected: str, file: str = CONFIG) -> CheckpointError:
    """Return the sentence for a value of a file that cannot be."""
    return CheckpointError("wrong_config_value", file=file, key=key[:120], value=_brief(value), expected=expected)


def bad_pair(key: str, value: object, other: str, other_value: object) -> CheckpointError:
    """Return the sentence for two values of a config that do not go together."""
    return CheckpointError(
        "bad_config_pair", file=CONFIG, key=key, value=_brief(value), other=other, other_value=_brief(other_value)
    )


def refused(error: Exception, config: Mapping[str, Any], file: str = CONFIG) -> UserError:
    """Return why transformers makes nothing of a config, in its own words where it does not name a key."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return ResourceError("out_of_memory")
    words = " ".join(str(error).split())
    named = words.partition("Validation error for field '")[2].partition("'")[0]
    expected = words.partition(" expected ")[2].partition(",")[0]
    if named and named in config and expected:
        return bad_value(named, config[named], expected[:80], file)
    reason = _reason(error)
    if named and named in config:
        return _unaccepted(named, config[named], reason, file)
    for key, value in _values(config, ""):  # a word that it does not know: an activation, a rotation, a dtype
        is_number = _is_number(value) and f"`{key}`={value}" in words
        is_word = isinstance(value, str) and key not in NAMES and (repr(value) in words or f" {value} " in words)
        if is_number or is_word:
            return _unaccepted(key, value, reason, file)
    return CheckpointError("config_refused", file=file, reason=reason)


def _unaccepted(key: str, value: object, reason: str, file: str) -> CheckpointError:
    """Return the sentence for a value that transformers refuses, in its own words."""
    return CheckpointError("unaccepted_value", file=file, key=key[:120], value=_brief(value), reason=reason)


def _reason(error: Exception) -> str:
    """Return what an error says, without the frame that its library puts around what a check of its own raised."""
    said = str(error)
    framed = said.partition("\n")[2] if type(error).__name__.startswith("StrictDataclass") else ""
    return " ".join((framed or f"{type(error).__name__}: {said}").split())[:MAX_REASON]


def _values(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield every value with the path of its key, ``"rope_parameters.factor"``; of lists also each of theirs."""
    if key:
        yield key, value
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _values(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _values(each, f"{key}[{index}]")


def _expected(name: str, value: Any) -> str:
    """Return what the value of a key ought to be, in signs that every language reads; nothing where it may be so."""
    if name == "sliding_window" and isinstance(value, list | Mapping):
        return "int, ≥ 0"
    is_one = name in SHARES | POSITIVE or name.endswith(SMALL)
    if value is None or (isinstance(value, list) and not is_one):
        return ""
    if type(value) is float and not math.isfinite(value):
        is_bound = not math.isnan(value) and any(part in name for part in MAY_BE_INFINITE)
        return "" if is_bound and name not in LARGEST else "< ∞"
    if name in LARGEST:
        least = 0 if name in MAY_BE_ZERO else 1
        is_whole = type(value) is int or (
            type(value) is float and value.is_integer()
        )  # 1200.0 is transformers' to judge
        return "" if is_whole and least <= value <= LARGEST[name] else f"int, {least} … {LARGEST[name]}"
    if name in SHARES:
        return "" if _is_number(value) and 0 <= value <= 1 else "0 … 1"
    if name in POSITIVE:
        return "" if _is_number(value) and 0 < value <= LARGEST_FACTOR else f"> 0, ≤ {LARGEST_FACTOR:g}"
    if name.endswith(DIVISORS) and _is_number(value):
        is_sound = value > 0 or (value == 0 and name in ZERO_IS_NONE)
        return "" if is_sound and value <= LARGEST_FACTOR else f"> 0, ≤ {LARGEST_FACTOR:g}"
    if name.endswith(FACTORS) and _is_number(value):
        return "" if abs(value) <= LARGEST_FACTOR else f"≤ {LARGEST_FACTOR:g}"
    if name in NUMBERS:
        return "" if _is_number(value) and abs(value) <= LARGEST_FACTOR else f"≤ {LARGEST_FACTOR:g}"
    if name.endswith(SMALL):
        return "" if _is_number(value) and 0 <= value <= 1 else "0 … 1"
    if name.endswith(COUNTED) and (isinstance(value, str) or (type(value) is int and value < -1)):
        return "int, ≥ 0"
    if name in ROPE:
        return "" if isinstance(value, Mapping) else "{…}"
    if name == "rope_type":
        return "" if isinstance(value, str) else '"…"'
    return f"≤ {MAX_INTEGER}" if type(value) is int and abs(value) > MAX_INTEGER and "theta" not in name else ""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _known(config: Any, name: str) -> Any:
    """Return what a config says, None where that is nothing, or not one thing for all layers."""
    try:
        return getattr(config, name, None)
    except Exception:  # transformers refuses to say where layers differ
        return None


def _whole(config: Any, name: str) -> int:
    """Return a whole number of a config, 0 where it has none."""
    value = _known(config, name)
    return value if type(value) is int else 0


def _brief(value: object) -> str:
    """Return a value as JSON would write it, or its beginning."""
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return f"{'-' if value < 0 else ''}2^{value.bit_length() - 1}…"
    if isinstance(value, list | dict):
        return f"[{len(value)}]" if isinstance(value, list) else f"{{{len(value)}}}"
    words = json.dumps(value[:MAX_WORDS] if isinstance(value, str) else value, default=str)
    return words if len(words) <= MAX_WORDS else words[:MAX_WORDS] + "…"
