"""What mlx-lm would pass by is refused by the name of the setting, and its own names are written."""

from typing import Any

import pytest
import transformers as tf

from studio.base.errors import ModelError
from studio.export.mlx.families import FAMILIES, family_of

YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 256,
    "short_factor": [1.0] * 8, "long_factor": [2.0] * 8,
}  # fmt: skip
GEMMA = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
ODD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "activation": (tf.LlamaConfig, {"hidden_act": "gelu"}, "hidden_act"),
    "rotation": (tf.LlamaConfig, {"rope_parameters": YARN | {"rope_type": "dynamic"}}, "rope_parameters: dynamic"),
    "yarn": (tf.LlamaConfig, {"rope_parameters": YARN | {"beta_fast": 16.0}}, "rope_parameters: beta_fast"),
    "part": (
        tf.LlamaConfig,
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        "rope_parameters: partial_rotary_factor",
    ),
    "mistral": (tf.MistralConfig, {"sliding_window": 1024}, "sliding_window"),
    "qwen2": (tf.Qwen2Config, {"use_sliding_window": True, "max_window_layers": 1}, "use_sliding_window"),
    "qwen2-head": (tf.Qwen2Config, {"head_dim": 32}, "head_dim"),
    "qwen3": (tf.Qwen3Config, {"attention_bias": True}, "attention_bias"),
    "phi3": (tf.Phi3Config, {"sliding_window": 2047, "pad_token_id": 0}, "sliding_window"),
    "phi3-long": (
        tf.Phi3Config,
        {"rope_parameters": LONG, "pad_token_id": 0, "original_max_position_embeddings": 256},
        "rope_parameters: longrope",
    ),
    "gemma3": (tf.Gemma3TextConfig, {"num_hidden_layers": 4, "rope_parameters": GEMMA}, "layer_types"),
    "gemma3-capped": (
        tf.Gemma3TextConfig,
        {"num_hidden_layers": 6, "rope_parameters": GEMMA, "final_logit_softcapping": 30.0},
        "final_logit_softcapping",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "more", "key"), ODD.values(), ids=list(ODD))
def test_a_setting_that_mlx_passes_by_is_named(config: Any, more: dict[str, Any], key: str) -> None:
    with pytest.raises(ModelError) as caught:
        family_of(config(**(SIZES | more)))
    assert (caught.value.key, caught.value.values["key"]) == ("to_mlx_setting", key)


def test_a_family_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        family_of(tf.GPT2Config())
    assert caught.value.key == "to_mlx_family"
    assert all(name in str(caught.value) for name in ("gpt2", *FAMILIES))


def test_a_rotation_is_said_as_mlx_reads_it() -> None:
    plain, turned = (tf.LlamaConfig(**SIZES, rope_parameters=rope) for rope in ({"rope_theta": 5e5}, YARN))
    assert family_of(plain).words(plain) == {"rope_theta": 5e5, "rope_scaling": None}
    said = family_of(turned).words(turned)
    assert said["rope_theta"] == 1e4
    assert said["rope_scaling"] == {key: value for key, value in YARN.items() if key != "rope_theta"}
    gemma = tf.Gemma3TextConfig(**SIZES, num_hidden_layers=7, rope_parameters=GEMMA)
    assert family_of(gemma).words(gemma) == {
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 6,
    }
