"""What makes a decoder Llama-like: its numbers and the names of its weights by their part in a step. Knows no kernel.

The families that ``families`` lists differ in a handful of things only; a model that has anything else (a layer norm,
experts, a table of positions) has no such shape and goes the general way.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from studio.checkpoint.config_values import bad_value
from studio.runtime.decoder.families import FAMILIES
from studio.runtime.decoder.shape import DecoderShape, LayerShape, Rotation

ACTIVATIONS = {"silu": 0, "gelu_pytorch_tanh": 1, "gelu": 2}
FIXED_ROTATIONS = frozenset({"default", "linear", "llama3", "yarn"})
"""Ways to stretch rotations whose frequencies do not depend on the text's length."""


def shape_of(model: nn.Module) -> DecoderShape | None:
    """Return the shape of a transformers model, which may be empty; None when it is not Llama-like.

    Raises CheckpointError for numbers that do not go together, such as four kv heads of two.
    """
    decoder: Any = model.get_decoder() if hasattr(model, "get_decoder") else None  # type: ignore[operator]
    config: Any = getattr(decoder, "config", None)
    head: Any = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    family = FAMILIES.get(getattr(config, "model_type", ""))
    if decoder is None or head is None or family is None or not decoder.layers:
        return None
    rotations = _rotations(decoder)
    activation = ACTIVATIONS.get(getattr(config, "hidden_activation", None) or config.hidden_act)
    named = {id(module): name for name, module in model.named_modules()}
    tied: dict[str, str] = dict(getattr(model, "all_tied_weights_keys", {}))

    def weight(module: nn.Module) -> str:
        name = f"{named[id(module)]}.weight"
        return tied.get(name, name)

    layers = [_layer(layer, weight, config, list(rotations or {})) for layer in decoder.layers]
    attention = decoder.layers[0].self_attn
    known = [layer for layer in layers if layer is not None]
    if (
        rotations is None
        or activation is None
        or len(known) < len(layers)
        or attention.head_dim % 16
        or head.bias is not None
    ):
        return None
    narrow = min((2 * len(rotation.frequencies) for rotation in rotations.values()), default=attention.head_dim)
    if narrow < attention.head_dim and not family.may_rotate_partly:
        raise bad_value("partial_rotary_factor", narrow / attention.head_dim, "1")
    scalar = getattr(config, "query_pre_attn_scalar", None)
    if scalar is not None and not scalar > 0:  # scores are divided by its root
        raise bad_value("query_pre_attn_scalar", scalar, "> 0")
    return DecoderShape(
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        intermediate_size=config.intermediate_size,
        vocabulary=head.out_features,
        activation=activation,
        epsilon=config.rms_norm_eps,
        norm_plus=family.norm_plus,
        embedding_scale=_embedding_scale(decoder.embed_tokens),
        attention_scale=attention.scaling,
        attention_cap=getattr(config, "attn_logit_softcapping", None) or 0.0,
        logit_cap=getattr(config, "final_logit_softcapping", None) or 0.0,
        rotations=tuple(rotations.values()),
        layers=tuple(known),
        embedding=weight(decoder.embed_tokens),
        head=weight(head),
        final_norm=weight(decoder.norm),
    )


def _layer(layer: Any, weight: Callable[[nn.Module], str], config: Any, kinds: list[str]) -> LayerShape | None:
    """Return a layer's shape, None where it has a part that no step here knows."""
    attention, mlp = layer.self_attn, layer.mlp
    if hasattr(attention, "qkv_proj"):
        qkv, gate_up = [attention.qkv_proj], [mlp.gate_up_proj]
    else:
        qkv, gate_up = [attention.q_proj, attention.k_proj, attention.v_proj], [mlp.gate_proj, mlp.up_proj]
    heads = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    has_four_norms = hasattr(layer, "pre_feedforward_layernorm")
    before_mlp = layer.pre_feedforward_layernorm if has_four_norms else layer.post_attention_layernorm
    after = [layer.post_attention_layernorm, layer.post_feedforward_layernorm] if has_four_norms else [None, None]
    parts = [layer.input_layernorm, before_mlp, *qkv, attention.o_proj, *gate_up, mlp.down_proj, *heads, *after]
    known = {id(p) for part in parts if part is not None for p in part.parameters()}
    if any(id(p) not in known for p in layer.parameters()):
        return None
    kind = str(getattr(attention, "layer_type", "")) if len(kinds) > 1 else "".join(kinds)
    rotates = getattr(attention, "use_rope", True) and kind in kinds
    return LayerShape(
        attention_norm=weight(layer.input_layernorm),
        qkv=tuple(map(weight, qkv)),
        output=weight(attention.o_proj),
        mlp_norm=weight(before_mlp),
        gate_up=tuple(map(weight, gate_up)),
        down=weight(mlp.down_proj),
        query_norm=None if heads[0] is None else weight(heads[0]),
        key_norm=None if heads[1] is None else weight(heads[1]),
        attention_after=None if after[0] is None else weight(after[0]),
        mlp_after=None if after[1] is None else weight(after[1]),
        window=getattr(attention, "sliding_window", getattr(config, "sliding_window", None)) or 0,
        rotation=kinds.index(kind) if rotates else -1,
    )


def _rotations(decoder: Any) -> dict[str, Rotation] | None:
    """Return the model's rotations by the kind of layer that has them, None where they depend on the text's length."""
    rotary = decoder.rotary_emb
    kinds = rotary.rope_type if isinstance(rotary.rope_type, dict) else {"": rotary.rope_type}
    if not FIXED_ROTATIONS.issuperset(kinds.values()):
        return None
    prefixes = {kind: f"{kind}_" if kind else "" for kind in kinds}
    return {
        kind: Rotation(getattr(rotary, f"{prefix}inv_freq").float(), getattr(rotary, f"{prefix}attention_scaling"))
        for kind, prefix in prefixes.items()
    }


def _embedding_scale(embedding: Any) -> float:
    """Return Gemma's factor as the model has it, rounded to the dtype of its weights; 1 for others."""
    scale = getattr(embedding, "embed_scale", None)
    return 1.0 if scale is None else float(torch.as_tensor(scale, dtype=torch.float32, device="cpu").to(torch.bfloat16))
