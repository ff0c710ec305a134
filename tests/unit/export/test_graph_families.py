"""What the graph does not compute is refused by the name of the setting, and a family that is not there by its own."""

from typing import Any

import pytest
import transformers as tf

from studio.base.errors import ModelError
from studio.export.graph_families import FAMILIES, check_family

SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
LONG = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 256,
    "short_factor": [1.0] * 8, "long_factor": [2.0] * 8,
}  # fmt: skip
ODD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "activation": (tf.LlamaConfig, {"hidden_act": "relu"}, "hidden_act"),
    "rotation": (
        tf.LlamaConfig,
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "rope_parameters: dynamic",
    ),
    "phi3-long": (
        tf.Phi3Config,
        {"rope_parameters": LONG, "pad_token_id": 0, "original_max_position_embeddings": 256},
        "rope_parameters: longrope",
    ),
    "head": (tf.LlamaConfig, {"head_dim": 24}, "head_dim"),
}


@pytest.mark.parametrize(("config", "more", "key"), ODD.values(), ids=list(ODD))
def test_a_setting_that_the_graph_does_not_have_is_named(config: Any, more: dict[str, Any], key: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_family("OpenVINO", config(**(SIZES | more)))
    assert (caught.value.key, caught.value.values["key"]) == ("to_graph_setting", key)


def test_a_family_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        check_family("OpenVINO", tf.GPT2Config())
    assert caught.value.key == "to_graph_family"
    assert all(name in str(caught.value) for name in ("gpt2", *FAMILIES))


def test_what_is_usual_is_taken() -> None:
    check_family("OpenVINO", tf.LlamaConfig(**SIZES))
    check_family("OpenVINO", tf.Gemma3TextConfig(**SIZES, head_dim=16, num_hidden_layers=7))
