"""Whether a decoder's numbers go together: asked once, before compiled code indexes with them. Knows no weights.

A config may say anything. Each number is refused under the name that it has there.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from studio.errors import CheckpointError

if TYPE_CHECKING:
    from studio.decoder.shape import DecoderShape

LARGEST = 1 << 24
"""No width or vocabulary is larger: products of a few of them stay within what compiled code counts with."""
MOST_ROTATIONS = 2
STEP = 16
"""Dimensions of a head come in multiples of this."""


def check_sizes(shape: "DecoderShape") -> None:
    """Raise CheckpointError, the key and its value named, for a shape that no model can have."""
    for key, value, is_sound in _claims(shape):
        if not is_sound:
            raise CheckpointError("bad_config_value", key=key, value=str(value)[:40])


def _claims(shape: "DecoderShape") -> Iterator[tuple[str, object, bool]]:
    """Yield each key, its value and whether it can be; later ones rely on those before."""
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
        yield key, size, type(size) is int and 0 < size <= LARGEST
    yield "num_key_value_heads", shape.kv_heads, shape.heads % shape.kv_heads == 0
    yield "head_dim", shape.dimensions, shape.dimensions % STEP == 0
    yield "num_attention_heads", shape.heads, (shape.heads + 2 * shape.kv_heads) * shape.dimensions <= LARGEST
    yield "hidden_act", shape.activation, shape.activation in range(3)
    numbers = {
        "rms_norm_eps": shape.epsilon,
        "embed_scale": shape.embedding_scale,
        "head_dim": shape.attention_scale,
        "attn_logit_softcapping": shape.attention_cap,
        "final_logit_softcapping": shape.logit_cap,
    }
    for key, number in numbers.items():
        yield key, number, math.isfinite(number) and number >= 0
    yield from _rotating(shape)
    for layer in shape.layers:
        yield "sliding_window", layer.window, type(layer.window) is int and 0 <= layer.window < 1 << 31
        yield "layer_types", layer.rotation, layer.rotation in range(-1, len(shape.rotations))
        yield "num_key_value_heads", len(layer.qkv), len(layer.qkv) in (1, 3)
        yield "intermediate_size", len(layer.gate_up), len(layer.gate_up) in (1, 2)


def _rotating(shape: "DecoderShape") -> Iterator[tuple[str, object, bool]]:
    yield "rope_parameters", len(shape.rotations), len(shape.rotations) <= MOST_ROTATIONS
    for rotation in shape.rotations:
        frequencies = rotation.frequencies
        is_sound = frequencies.ndim == 1 and frequencies.is_floating_point() and bool(frequencies.isfinite().all())
        yield "rope_parameters", frequencies.dtype, is_sound and math.isfinite(rotation.scale)
        yield (
            "partial_rotary_factor",
            len(frequencies) / (shape.dimensions / 2),
            (0 < 2 * len(frequencies) <= shape.dimensions),
        )
        yield "rope_parameters", len(frequencies), len(frequencies) == len(shape.rotations[0].frequencies)
