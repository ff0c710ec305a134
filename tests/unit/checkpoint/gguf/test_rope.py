"""Positions turn as a GGUF file says, and what the model could not follow is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gguf_models import CLOSE, Written, distance, refusal

FACTORS = [1.0 + index / 8 for index in range(8)]


ROPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({"rope_type": "linear", "factor": 4.0}, {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0}),
    "linear-by-its-factor": ({"rope_type": "linear", "factor": 2.0}, {"rope__scaling__factor": 2.0}),
    "linear-in-old-words": ({"rope_type": "linear", "factor": 2.0}, {"rope__scale_linear": 2.0}),
    "yarn": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {
            "rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 64,
        },
    ),
    "yarn-with-all-settings": (
        {
            "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "attention_factor": 1.3,
            "beta_fast": 16.0, "beta_slow": 2.0,
        },
        {
            "rope__scaling__type": "yarn", "rope__scaling__factor": 8.0, "rope__scaling__original_context_length": 32,
            "rope__scaling__yarn_attn_factor": 1.3, "rope__scaling__yarn_beta_fast": 16.0,
            "rope__scaling__yarn_beta_slow": 2.0,
        },
    ),
    "none": ({"rope_type": "default"}, {"rope__scaling__type": "none", "rope__scaling__factor": 1.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROPES)
def test_positions_turn_as_the_metadata_say(name: str, tmp_path: Path) -> None:
    parameters, metadata = ROPES[name]
    written = Written("llama", "llama", tmp_path, rope_parameters={"rope_theta": 1e4, **parameters})
    assert distance(written.file(**metadata), written.logits()) < CLOSE


def llama3(original: int, factor: float = 32.0, low: float = 1.0, high: float = 4.0) -> dict[str, Any]:
    return {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("theta", "parameters"),
    [(1e4, llama3(64)), (5e5, llama3(128, factor=8.0)), (1e4, llama3(100, factor=4.0, high=8.0))],
    ids=["llama-3.2", "llama-3.1", "other-ends"],
)
def test_factors_of_frequencies_become_llama3s_parameters(
    theta: float, parameters: dict[str, Any], tmp_path: Path
) -> None:
    rope = {"rope_theta": theta, **parameters}
    written = Written("llama", "llama", tmp_path, rope_parameters=rope, head_dim=32)
    plain = theta ** (-np.arange(0, 32, 2) / 32)
    factors = plain / written.model.model.rotary_emb.inv_freq.numpy()
    written.arrays["rope_freqs.weight"] = factors.astype(np.float32)
    assert distance(written.file(), written.logits()) < CLOSE


def test_real_llama_31s_factors_are_known() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from studio.checkpoint.gguf.rope import llama3_parameters

    rope = {"rope_theta": 5e5, **llama3(8192, factor=8.0)}
    config = LlamaConfig(hidden_size=4096, num_attention_heads=32, head_dim=128, rope_parameters=rope)
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 5e5 ** (-np.arange(0, 128, 2) / 128)
    factors = (plain / frequencies.numpy()).astype(np.float32).astype(np.float64)
    assert llama3_parameters(plain, factors) == llama3(8192, factor=8.0)


@pytest.mark.parametrize(
    ("factors", "metadata", "named"),
    [
        (FACTORS, {}, "rope_freqs.weight"),
        ([1.0] * 7, {}, "rope_freqs.weight"),
        ([1.0] * 7 + [-4.0], {}, "rope_freqs.weight"),
        (FACTORS, {"rope__scaling__type": "linear", "rope__scaling__factor": 2.0}, "rope_freqs.weight"),
        (None, {"rope__scaling__type": "dynamic", "rope__scaling__factor": 2.0}, "llama.rope.scaling.type"),
        (None, {"rope__scaling__factor": -2.0}, "llama.rope.scaling.factor"),
        (None, {"rope__freq_base": 0.5}, "llama.rope.freq_base"),
        (None, {"rope__dimension_count": 8}, "llama.rope.dimension_count"),
        (None, {"rope__dimension_count": 7}, "llama.rope.dimension_count"),
        (None, {"logit_scale": 0.25}, "llama.logit_scale"),
        (None, {"attention__scale": 0.25}, "llama.attention.scale"),
        (None, {"attention__causal": False}, "llama.attention.causal"),
    ],
)
def test_what_the_model_could_not_follow_is_refused_by_name(
    factors: list[float] | None, metadata: dict[str, Any], named: str, tmp_path: Path
) -> None:
    written = Written("llama", "llama", tmp_path)
    if factors is not None:
        written.arrays["rope_freqs.weight"] = np.array(factors, np.float32)
    assert named in str(refusal(written.file(**metadata)))


def test_factors_that_change_nothing_are_let_pass(tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    written.arrays["rope_freqs.weight"] = np.ones(8, np.float32)
    assert distance(written.file(), written.logits()) < CLOSE


def test_only_gemmas_full_layers_are_stretched(tmp_path: Path) -> None:
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    }
    kinds = ["sliding_attention", "full_attention"]
    written = Written("gemma3_text", "gemma3", tmp_path, rope_parameters=rope, layer_types=kinds, sliding_window=32)
    written.metadata |= {
        ".rope.freq_base": 1e6, ".attention.sliding_window": 32, ".attention.sliding_window_pattern": 2,
        ".rope.scaling.type": "linear", ".rope.scaling.factor": 8.0,
    }  # fmt: skip
    assert distance(written.file(), written.logits()) < CLOSE
    written.metadata[".attention.sliding_window_pattern"] = [True, False]
    assert distance(written.file("n.gguf"), written.logits()) < CLOSE


def test_phi3s_long_and_short_factors_are_kept(tmp_path: Path) -> None:
    longer = [2.0 + index for index in range(8)]
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": FACTORS, "long_factor": longer,
        "original_max_position_embeddings": 64, "attention_factor": 1.25,
    }  # fmt: skip
    written = Written("phi3", "phi3", tmp_path, rope_parameters=rope, original_max_position_embeddings=64)
    written.arrays["rope_factors_short.weight"] = np.array(FACTORS, np.float32)
    written.arrays["rope_factors_long.weight"] = np.array(longer, np.float32)
    file = written.file(rope__scaling__original_context_length=64, rope__scaling__attn_factor=1.25)
    assert distance(file, written.logits()) < CLOSE
    del written.arrays["rope_factors_short.weight"]
    assert "rope_factors_short.weight" in str(
        refusal(written.file("n.gguf", rope__scaling__original_context_length=64))
    )
