"""Whether a decoder's numbers go together: asked once, before compiled code indexes with them. Knows no weights.

A config may say anything. Each number is refused under the name that it has there. Widths and vocabularies are at most
``MAX_SIZE``, so that products of a few of them stay within what compiled code counts with.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from studio.base.errors import CheckpointError
from studio.checkpoint.config_values import MAX_SIZE, bad_value
from studio.checkpoint.file_names import CONFIG

if TYPE_CHECKING:
    from studio.runtime.decoder.llama_like import DecoderShape

MOST_ROTATIONS = 2
STEP = 16
"""Dimensions of a head come in multiples of this."""


def check_sizes(shape: "DecoderShape") -> None:
    """Raise CheckpointError, the key and its value named, for a shape that no model can have."""
    for key, value, is_sound, expected in _claims(shape):
        if not is_sound:
            raise bad_value(key, value, expected)


def _claims(shape: "DecoderShape") -> Iterator[tuple[str, object, bool, str]]:
    """Yield each key, its value, whether it can be and what it must be; later ones rely on those before."""
    sizes = {
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.dimensions,
        "intermediate_size": shape.inner,
        "vocab_size": shape.vocabulary,
        "num_hidden_layers": len(shape.layers),
    }
    for key, size in sizes.items():
        yield key, size, type(size) is int and 0 < size <= MAX_SIZE, f"int, 1 … {MAX_SIZE}"
    heads = f"num_attention_heads ({shape.heads})"
    yield "num_key_value_heads", shape.kv_heads, shape.heads % shape.kv_heads == 0, f"{heads} / n"
    yield "head_dim", shape.dimensions, shape.dimensions % STEP == 0, f"{STEP} × n"
    together = (shape.heads + 2 * shape.kv_heads) * shape.dimensions
    yield "num_attention_heads", shape.heads, together <= MAX_SIZE, f"≤ {MAX_SIZE} / head_dim ({shape.dimensions})"
    yield "hidden_act", shape.activation, shape.activation in range(3), "0 … 2"
    numbers = {
        "rms_norm_eps": shape.epsilon,
        "embed_scale": shape.embedding_scale,
        "query_pre_attn_scalar": shape.attention_scale,
        "attn_logit_softcapping": shape.attention_cap,
        "final_logit_softcapping": shape.logit_cap,
    }
    for key, number in numbers.items():
        yield key, number, _is_finite(number) and number >= 0, "≥ 0, < ∞"
    yield from _rotating(shape)
    for layer in shape.layers:
        yield "sliding_window", layer.window, type(layer.window) is int and 0 <= layer.window < 1 << 31, "int, ≥ 0"
        kinds = range(-1, len(shape.rotations))
        yield "layer_types", layer.rotation, layer.rotation in kinds, f"-1 … {kinds[-1]}"
        yield "num_key_value_heads", len(layer.qkv), len(layer.qkv) in (1, 3), "1, 3"
        yield "intermediate_size", len(layer.gate_up), len(layer.gate_up) in (1, 2), "1, 2"


def _is_finite(number: object) -> bool:
    """Return whether it is one finite number: roots of what a config says may be complex."""
    return isinstance(number, int | float) and math.isfinite(number)


def _rotating(shape: "DecoderShape") -> Iterator[tuple[str, object, bool, str]]:
    yield "rope_parameters", len(shape.rotations), len(shape.rotations) <= MOST_ROTATIONS, f"≤ {MOST_ROTATIONS}"
    for rotation in shape.rotations:
        frequencies = rotation.frequencies
        is_row = frequencies.ndim == 1 and frequencies.is_floating_point()
        yield "rope_parameters", str(frequencies.dtype), is_row, "float32"
        if not frequencies.isfinite().all():
            raise CheckpointError("rotation_not_finite", file=CONFIG, key="rope_parameters")
        yield "rope_parameters", rotation.scale, _is_finite(rotation.scale), "< ∞"
        share, first = len(frequencies) / (shape.dimensions / 2), len(shape.rotations[0].frequencies)
        yield "partial_rotary_factor", share, 0 < 2 * len(frequencies) <= shape.dimensions, "0 … 1"
        yield "rope_parameters", len(frequencies), len(frequencies) == first, str(first)
