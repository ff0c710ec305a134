"""Bytes of keys and values from a config alone, and none where attention is not the usual."""

from types import SimpleNamespace
from typing import Any

import pytest

from studio.runtime.decoder.kv_size import KeyValues, key_values

LLAMA = {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576, "num_hidden_layers": 30}


def of(**config: Any) -> KeyValues | None:
    return key_values(SimpleNamespace(**config))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, KeyValues(30, 3, 64)),
        ({"head_dim": 128}, KeyValues(30, 3, 128)),
        ({"num_key_value_heads": None}, KeyValues(30, 9, 64)),
        ({"layer_types": ["full_attention", "sliding_attention"] * 15}, KeyValues(30, 3, 64)),
        ({"layer_types": ["linear_attention"] * 30}, None),
        ({"kv_lora_rank": 512}, None),
        ({"hidden_size": "wide"}, None),
        ({"num_hidden_layers": None}, None),
    ],
    ids=["grouped", "wide-heads", "all-heads", "windows", "linear", "latent", "words", "missing"],
)
def test_what_a_config_says(changes: dict[str, Any], expected: KeyValues | None) -> None:
    assert of(**LLAMA | changes) == expected


def test_bytes_at_every_width() -> None:
    """Of 64 dimensions at 8 and 4 bits there are two grids of two fp16."""
    one = KeyValues(layers=1, heads=1, head_dim=64)
    assert [one.nbytes(10, bits) for bits in (16, 8, 4)] == [2 * 10 * each for each in (128, 64 + 8, 32 + 8)]
    assert KeyValues(30, 3, 64).nbytes(10) == 30 * 3 * one.nbytes(10)
