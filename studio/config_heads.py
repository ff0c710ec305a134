"""Whether the numbers of a config's attention go together, before a model is built with them. Knows no family.

Tables are as long as these numbers say: rotations of a million times a head's width would fill the memory.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from studio.errors import CheckpointError

SHARES = ("partial_rotary_factor", "rotary_pct")
"""Of a head's width, what rotates."""


def check_heads(config: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a config whose heads cannot be, the key named; of its text part too."""
    heads, kv_heads = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if type(heads) is int and heads < 1:
        _refuse("num_attention_heads", heads)
    if type(heads) is type(kv_heads) is int and (kv_heads < 1 or heads % kv_heads):
        _refuse("num_key_value_heads", kv_heads)
    width = config.get("head_dim")
    if type(width) is int and width < 1:
        _refuse("head_dim", width)
    if isinstance(part := config.get("text_config"), Mapping):
        check_heads(part)
    for key, share in _shares(config):
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            _refuse(key, share)


def _shares(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every share that rotates, at any depth."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key in SHARES and each is not None:
                yield key, each
            else:
                yield from _shares(each)


def _refuse(key: str, value: object) -> None:
    raise CheckpointError("bad_config_value", key=key, value=str(value)[:40])
