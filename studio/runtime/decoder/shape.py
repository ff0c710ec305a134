"""A Llama-like decoder in numbers, checked before compiled code indexes with them. Knows no weights.

A config may say anything. Each number is refused under the name that it has there. Widths and vocabularies are at most
``MAX_SIZE``, so that products of a few of them stay within what compiled code counts with.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from studio.base.errors import CheckpointError
from studio.checkpoint.config_values import MAX_SIZE, bad_value
from studio.checkpoint.file_names import CONFIG

MOST_ROTATIONS = 2
STEP = 16
"""Dimensions of a head come in multiples of this."""


@dataclass(frozen=True)
class Rotation:
    """Angles by position: ``position * frequencies``, cosines and sines times ``scale``."""

    frequencies: Tensor
    """fp32 [rotating dimensions / 2]."""
    scale: float


@dataclass(frozen=True)
class LayerShape:
    """One layer's weights by name. A tuple holds one fused weight or several, their outputs concatenated."""

    attention_norm: str
    qkv: tuple[str, ...]
    output: str
    mlp_norm: str
    gate_up: tuple[str, ...]
    down: str
    query_norm: str | None = None
    key_norm: str | None = None
    attention_after: str | None = None
    """The norm behind attention, before the residual is added."""
    mlp_after: str | None = None
    window: int = 0
    """Positions it looks back on, itself included; 0: all."""
    rotation: int = 0
    """Which of the model's rotations, -1 for none."""


@dataclass(frozen=True)
class DecoderShape:
    """A Llama-like decoder: what a step needs to know beside the weights."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    """Of one head."""
    intermediate_size: int
    vocabulary: int
    activation: int
    """Of :data:`ACTIVATIONS`."""
    epsilon: float
    norm_plus: float
    """Added to the weights of norms."""
    embedding_scale: float
    attention_scale: float
    attention_cap: float
    logit_cap: float
    """Bounds of scores and logits, 0 for none."""
    rotations: tuple[Rotation, ...]
    layers: tuple[LayerShape, ...]
    embedding: str
    head: str
    final_norm: str

    def __post_init__(self) -> None:
        check_sizes(self)

    def weights(self) -> Iterator[str]:
        """Yield the names of all matrices."""
        yield from dict.fromkeys((self.embedding, self.head))
        for layer in self.layers:
            yield from (*layer.qkv, layer.output, *layer.gate_up, layer.down)


def check_sizes(shape: DecoderShape) -> None:
    """Raise CheckpointError, the key and its value named, for a shape that no model can have."""
    for key, value, is_sound, expected in _claims(shape):
        if not is_sound:
            raise bad_value(key, value, expected)


def _claims(shape: DecoderShape) -> Iterator[tuple[str, object, bool, str]]:
    """Yield each key, its value, whether it can be and what it must be; later ones rely on those before."""
    sizes = {
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocabulary,
        "num_hidden_layers": len(shape.layers),
    }
    for key, size in sizes.items():
        yield key, size, type(size) is int and 0 < size <= MAX_SIZE, f"int, 1 … {MAX_SIZE}"
    heads = f"num_attention_heads ({shape.heads})"
    yield "num_key_value_heads", shape.kv_heads, shape.heads % shape.kv_heads == 0, f"{heads} / n"
    yield "head_dim", shape.head_dim, shape.head_dim % STEP == 0, f"{STEP} × n"
    together = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    yield "num_attention_heads", shape.heads, together <= MAX_SIZE, f"≤ {MAX_SIZE} / head_dim ({shape.head_dim})"
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


def _rotating(shape: DecoderShape) -> Iterator[tuple[str, object, bool, str]]:
    yield "rope_parameters", len(shape.rotations), len(shape.rotations) <= MOST_ROTATIONS, f"≤ {MOST_ROTATIONS}"
    for rotation in shape.rotations:
        frequencies = rotation.frequencies
        is_row = frequencies.ndim == 1 and frequencies.is_floating_point()
        yield "rope_parameters", str(frequencies.dtype), is_row, "float32"
        if not frequencies.isfinite().all():
            raise CheckpointError("rotation_not_finite", file=CONFIG, key="rope_parameters")
        yield "rope_parameters", rotation.scale, _is_finite(rotation.scale), "< ∞"
        share, first = len(frequencies) / (shape.head_dim / 2), len(shape.rotations[0].frequencies)
        yield "partial_rotary_factor", share, 0 < 2 * len(frequencies) <= shape.head_dim, "0 … 1"
        yield "rope_parameters", len(frequencies), len(frequencies) == first, str(first)
