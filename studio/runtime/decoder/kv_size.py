"""What keys and values of a text take in memory, computed from a model's config. Knows no weights."""

from dataclasses import dataclass
from typing import Any

SPAN = 32
"""Dimensions of a cached key or value that share a grid, kept as two fp16."""


@dataclass(frozen=True)
class KeyValues:
    """The layers that keep keys and values: ``KeyValues(layers=30, heads=3, head_dim=64)``."""

    layers: int
    heads: int
    """Of keys and values, not of queries."""
    head_dim: int

    def nbytes(self, positions: int, bits: int = 16) -> int:
        """Return the bytes of so many positions at 16, 8 or 4 bits, the grids of the last two included."""
        grids = -(-self.head_dim // SPAN) * 2 * 2 if bits < 16 else 0
        return 2 * self.layers * self.heads * positions * (self.head_dim * bits // 8 + grids)


def key_values(config: Any) -> KeyValues | None:
    """Return what a transformers config says of them, None where it is not the usual attention in every layer."""
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    hidden, layers = getattr(config, "hidden_size", None), getattr(config, "num_hidden_layers", None)
    if not (type(heads) is type(hidden) is type(layers) is int) or getattr(config, "kv_lora_rank", None):
        return None
    kinds = getattr(config, "layer_types", None) or []
    if any(kind not in ("full_attention", "sliding_attention") for kind in kinds):
        return None
    queries = getattr(config, "num_attention_heads", heads)
    return KeyValues(layers, heads, getattr(config, "head_dim", None) or hidden // queries)
