"""What a model is made of is its own code's word; a config that lies or asks for code is refused.

The models are real ones of transformers, a few thousand weights each, saved and read back.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from studio.base.errors import CheckpointError, ModelError
from studio.checkpoint.architecture import empty_model, layer_map, load_config
from studio.checkpoint.headers import TensorEntry, read_header
from studio.checkpoint.layers import Kind, Layer

V, H, M, KV = 32, 16, 24, 8

soon = pytest.mark.timeout(300)
"""What would take for ever, or all memory, if it were begun at all."""
"""Vocabulary, hidden, MLP width and key/value width of the tiny models."""
TINY: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": H,
    "intermediate_size": M,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GPT2: dict[str, Any] = {
    "vocab_size": V, "n_positions": 4, "n_embd": H, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**TINY),
    "llama-tied": LlamaConfig(**TINY, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**TINY),
    "gemma3": Gemma3TextConfig(**TINY),
    "phi3": Phi3Config(**TINY),
    "gpt2": GPT2Config(**GPT2),
}
Shapes = dict[str, tuple[Kind, tuple[int, ...]]]

ATTENTION: Shapes = {
    "self_attn.q_proj": (Kind.LINEAR, (H, H)),
    "self_attn.k_proj": (Kind.LINEAR, (KV, H)),
    "self_attn.v_proj": (Kind.LINEAR, (KV, H)),
    "self_attn.o_proj": (Kind.LINEAR, (H, H)),
}
MLP: Shapes = {
    "mlp.gate_proj": (Kind.LINEAR, (M, H)),
    "mlp.up_proj": (Kind.LINEAR, (M, H)),
    "mlp.down_proj": (Kind.LINEAR, (H, M)),
}
NORMS: Shapes = dict.fromkeys(("input_layernorm", "post_attention_layernorm", "norm"), (Kind.OTHER, (H,)))
QK_NORMS: Shapes = dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), (Kind.OTHER, (KV,)))
EMBEDDING: Shapes = {"embed_tokens": (Kind.EMBEDDING, (V, H))}
HEAD: Shapes = {"lm_head": (Kind.HEAD, (V, H))}

EXPECTED: dict[str, Shapes] = {
    "llama": EMBEDDING | ATTENTION | MLP | NORMS | HEAD,
    "llama-tied": EMBEDDING | ATTENTION | MLP | NORMS,
    "qwen3": EMBEDDING | ATTENTION | QK_NORMS | MLP | NORMS | HEAD,
    "gemma3": EMBEDDING | ATTENTION | QK_NORMS | MLP | NORMS
    | dict.fromkeys(("pre_feedforward_layernorm", "post_feedforward_layernorm"), (Kind.OTHER, (H,))),
    "phi3": EMBEDDING | NORMS | HEAD
    | {
        "self_attn.qkv_proj": (Kind.LINEAR, (H + 2 * KV, H)),
        "self_attn.o_proj": (Kind.LINEAR, (H, H)),
        "mlp.gate_up_proj": (Kind.LINEAR, (2 * M, H)),
        "mlp.down_proj": (Kind.LINEAR, (H, M)),
    },
    # Conv1D holds [K, N]; the map says [N, K] all the same
    "gpt2": {
        "wte": (Kind.EMBEDDING, (V, H)),
        "wpe": (Kind.EMBEDDING, (4, H)),
        "attn.c_attn": (Kind.LINEAR, (3 * H, H)),
        "attn.c_attn.bias": (Kind.OTHER, (3 * H,)),
        "attn.c_proj": (Kind.LINEAR, (H, H)),
        "attn.c_proj.bias": (Kind.OTHER, (H,)),
        "mlp.c_fc": (Kind.LINEAR, (4 * H, H)),
        "mlp.c_fc.bias": (Kind.OTHER, (4 * H,)),
        "mlp.c_proj": (Kind.LINEAR, (H, 4 * H)),
        "mlp.c_proj.bias": (Kind.OTHER, (H,)),
    }
    | {f"{norm}{end}": (Kind.OTHER, (H,)) for norm in ("ln_1", "ln_2") for end in ("", ".bias")}
    | {"ln_f": (Kind.OTHER, (H,)), "bias": (Kind.OTHER, (H,))},
}  # fmt: skip
for_every_model = pytest.mark.parametrize("name", CONFIGS)


def a_model(name: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(CONFIGS[name])


def saved(model: PreTrainedModel, folder: Path) -> dict[str, TensorEntry]:
    model.save_pretrained(folder)
    return read_header(folder / "model.safetensors")


def mapped(name: str, folder: Path) -> tuple[Layer, ...]:
    entries = saved(a_model(name), folder)
    return layer_map(load_config(CONFIGS[name].to_dict()), entries)


def changed(entries: dict[str, TensorEntry], name: str, shape: tuple[int, ...], dtype: str) -> dict[str, TensorEntry]:
    return entries | {name: TensorEntry("model.safetensors", dtype, shape, 0, 0)}


@for_every_model
def test_every_tensor_has_its_kind_and_shape(name: str, tmp_path: Path) -> None:
    layers = mapped(name, tmp_path)
    assert {layer.projection: (layer.kind, layer.shape) for layer in layers} == EXPECTED[name]


@for_every_model
def test_the_map_holds_every_weight_of_the_file_once(name: str, tmp_path: Path) -> None:
    layers = mapped(name, tmp_path)
    entries = read_header(tmp_path / "model.safetensors")
    assert sorted(layer.source for layer in layers) == sorted(entries)
    assert sum(layer.numel for layer in layers) == sum(parameter.numel() for parameter in a_model(name).parameters())


@for_every_model
def test_a_layer_of_a_block_knows_which(name: str, tmp_path: Path) -> None:
    layers = mapped(name, tmp_path)
    blocks = [layer.block for layer in layers if layer.kind is Kind.LINEAR]
    assert blocks == sorted(block for block in blocks if block is not None)
    assert set(blocks) == {0, 1}
    assert all(layer.block is None for layer in layers if layer.kind in (Kind.EMBEDDING, Kind.HEAD))


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("llama-tied", "model.embed_tokens.weight"),
        ("gemma3", "model.embed_tokens.weight"),
        ("gpt2", "transformer.wte.weight"),
    ],
    ids=["llama-tied", "gemma3", "gpt2"],
)
def test_a_tied_head_is_named_by_its_embedding(name: str, owner: str, tmp_path: Path) -> None:
    layers = mapped(name, tmp_path)
    assert {layer.name: layer.tied for layer in layers if layer.tied} == {owner: ("lm_head.weight",)}
    assert all(layer.kind is not Kind.HEAD for layer in layers)


def test_a_second_copy_of_a_tied_head_is_left_alone(tmp_path: Path) -> None:
    entries = saved(a_model("llama-tied"), tmp_path)
    twice = entries | {"lm_head.weight": entries["model.embed_tokens.weight"]}
    config = load_config(CONFIGS["llama-tied"].to_dict())
    assert layer_map(config, twice) == layer_map(config, entries)


def test_only_conv1d_is_held_the_other_way_round(tmp_path: Path) -> None:
    layers = mapped("gpt2", tmp_path / "gpt2")
    assert {layer.kind for layer in layers if layer.transposed} == {Kind.LINEAR}
    assert all(layer.transposed for layer in layers if layer.kind is Kind.LINEAR)
    assert not any(layer.transposed for layer in mapped("llama", tmp_path / "llama"))


def test_names_without_the_prefix_of_the_inner_model_are_found(tmp_path: Path) -> None:
    """As the original GPT-2 repositories hold them: ``h.0.attn.c_attn.weight``."""
    model = a_model("gpt2")
    entries = saved(model.transformer, tmp_path)
    assert not any(name.startswith("transformer.") for name in entries)
    layers = layer_map(load_config(CONFIGS["gpt2"].to_dict()), entries)
    assert all(layer.name == f"transformer.{layer.source}" for layer in layers)


@pytest.mark.parametrize("missing", ["model.layers.1.mlp.up_proj.weight", "lm_head.weight", "model.norm.weight"])
def test_a_missing_tensor_is_named(missing: str, tmp_path: Path) -> None:
    entries = saved(a_model("llama"), tmp_path)
    del entries[missing]
    with pytest.raises(CheckpointError) as caught:
        layer_map(load_config(CONFIGS["llama"].to_dict()), entries)
    assert (caught.value.key, caught.value.values) == ("tensor_missing", {"tensor": missing})


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((H, M), "F32"), ((M, H, 1), "F32"), ((M * H,), "F32"), ((0, H), "F32"), ((M, H), "I8")],
    ids=["transposed", "third_axis", "flat", "empty", "int8"],
)
def test_a_tensor_that_is_not_as_the_config_promises_is_named(
    shape: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    tensor = "model.layers.0.mlp.up_proj.weight"
    entries = changed(saved(a_model("llama"), tmp_path), tensor, shape, dtype)
    with pytest.raises(CheckpointError) as caught:
        layer_map(load_config(CONFIGS["llama"].to_dict()), entries)
    assert (caught.value.key, caught.value.values) == ("tensor_mismatch", {"tensor": tensor})


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({}, "unknown_architecture"),
        ({"model_type": "no_such_model"}, "unknown_architecture"),
        ({"model_type": "x" * 5000}, "unknown_architecture"),
        ({"model_type": ["llama"]}, "unknown_architecture"),
        ({"model_type": "vit"}, "unknown_architecture"),
        ({"model_type": "clip"}, "unknown_architecture"),
        ({"model_type": "whisper"}, "unknown_architecture"),
        ({"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Mine"}}, "needs_remote_code"),
        ({"model_type": "chatglm", "auto_map": {"AutoModel": "modeling_chatglm.Chat"}}, "needs_remote_code"),
        ({"model_type": "chatglm"}, "needs_remote_code"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "quip"}}, "already_quantized"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 5}}, "packed_setting"),
        ({"model_type": "llama", "quantization_config": "x" * 5000}, "already_quantized"),
    ],
    ids=[
        *("empty", "unknown", "endless", "not_text", "vision", "clip", "speech"),
        *("remote_code", "chatglm", "chatglm_bare", "quantized", "bits", "quantized_text"),
    ],
)
def test_what_the_studio_cannot_run_is_refused(config: dict[str, Any], key: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_config(config)
    assert caught.value.key == key
    assert len(str(caught.value)) < 400


def test_what_quantized_the_weights_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        load_config({"model_type": "llama", "quantization_config": {"quant_method": "bitsandbytes", "bits": 4}})
    assert caught.value.values == {"method": "bitsandbytes"}
    assert "bitsandbytes" in str(caught.value)


@pytest.mark.parametrize(
    "lie",
    [
        {"text_config": CONFIGS["llama"].to_dict() | {"vocab_size": 10**12}},
        {"text_config": CONFIGS["llama"].to_dict() | {"hidden_size": "many"}},
        {"text_config": CONFIGS["llama"].to_dict() | {"model_type": "evil"}},
        {"text_config": "llama"},
        {"text_config": None, "vision_config": {"num_hidden_layers": 10**12}},
        {"projector": [{"a": [10**12]}]},
    ],
    ids=["vocabulary", "width", "type", "text", "vision", "deep"],
)
def test_a_lie_within_a_part_of_a_config_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises((CheckpointError, ModelError)) as caught:
        load_config({"model_type": "llava"} | lie)
    assert str(caught.value)


def implementation(config: Any, part: str) -> object:
    """Return which code a model built from a config computes a part with."""
    model: Any = empty_model(config)
    return getattr(model.config, f"_{part}_implementation")


@soon
def test_labels_and_kernels_within_a_part_are_ignored_too() -> None:
    text = CONFIGS["llama"].to_dict() | {"num_labels": 10**6, "_experts_implementation": "evil/kernel"}
    config = load_config({"model_type": "llava", "text_config": text | {"attn_implementation": "evil/kernel"}})
    assert config.model_type == "llama"
    assert len(config.id2label) < 10
    assert config._attn_implementation is None
    assert implementation(config, "experts") == "eager"


def test_a_thousand_times_nested_config_is_refused() -> None:
    config: dict[str, Any] = {}
    for _ in range(5000):
        config = {"a": config}
    with pytest.raises(CheckpointError):
        load_config({"model_type": "llama", "deep": config})


def test_an_encoder_trained_as_a_decoder_is_one() -> None:
    assert load_config(BertConfig(is_decoder=True).to_dict()).model_type == "bert"


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize(
    "kernel", ["evil/kernel", {"": "evil/kernel"}, "flash_attention_2"], ids=["hub", "dict", "own"]
)
def test_the_attention_a_config_names_is_ignored(key: str, kernel: object) -> None:
    config = load_config(CONFIGS["llama"].to_dict() | {key: kernel})
    assert config._attn_implementation is None
    assert implementation(config, "attn") == "sdpa"


@pytest.mark.parametrize("key", ["experts_implementation", "_experts_implementation"])
def test_the_kernel_a_config_names_for_experts_is_ignored(key: str) -> None:
    config = load_config(CONFIGS["llama"].to_dict() | {key: "evil/kernel"})
    assert implementation(config, "experts") != "evil/kernel"


def test_code_a_config_names_is_ignored_where_transformers_has_its_own() -> None:
    hostile = CONFIGS["llama"].to_dict() | {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}
    assert type(empty_model(load_config(hostile))).__module__ == "transformers.models.llama.modeling_llama"


@pytest.mark.parametrize(
    "lie",
    [
        {"hidden_size": "many"},
        {"hidden_size": -16},
        {"num_attention_heads": 0},
        {"rope_parameters": 7},
        {"dtype": "evil"},
        {"hidden_act": "evil"},
        {"vocab_size": -1},
        {"vocab_size": 10**30},
        {"head_dim": 10**14},
        {"pad_token_id": 10**6},
        {"rope_parameters": {"rope_type": "evil", "rope_theta": 1.0}},
    ],
    ids=lambda lie: "-".join(f"{key}={value}" for key, value in lie.items())[:40],
)
def test_a_config_that_makes_no_model_of_these_tensors_is_refused(lie: dict[str, Any], tmp_path: Path) -> None:
    """Whatever transformers makes of such a number, the user reads a sentence."""
    entries = saved(a_model("llama"), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        layer_map(load_config(CONFIGS["llama"].to_dict() | lie), entries)
    assert str(caught.value)


def test_a_name_with_an_endless_number_is_refused(tmp_path: Path) -> None:
    entries = saved(a_model("llama"), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        layer_map(load_config(CONFIGS["llama"].to_dict()), changed(entries, f"a.{'9' * 5000}.b", (1,), "F32"))
    assert caught.value.key == "bad_tensor_name"


@soon
def test_more_layers_than_tensors_are_refused_before_they_are_built(tmp_path: Path) -> None:
    entries = saved(a_model("llama"), tmp_path)
    with pytest.raises(CheckpointError):
        layer_map(load_config(CONFIGS["llama"].to_dict() | {"num_hidden_layers": 10**7}), entries)


@soon
@pytest.mark.parametrize("positions", [100_000, 1 << 24])
def test_a_table_of_all_pairs_of_positions_is_refused_before_it_is_made(tmp_path: Path, positions: int) -> None:
    """Some old models hold one in every layer: a repository of two megabytes would ask for gigabytes."""
    entries = saved(a_model("llama"), tmp_path)
    small = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "vocab_size": 10}
    config = GPTNeoConfig(**small, attention_types=[[["global"], 2]], max_position_embeddings=positions)
    with pytest.raises(CheckpointError) as caught:
        layer_map(load_config(config.to_dict()), entries)
    assert caught.value.key == "large_buffers"


@soon
def test_labels_are_not_made_by_the_million() -> None:
    """``num_labels`` has a dictionary built, and no language model needs it."""
    config = load_config(CONFIGS["llama"].to_dict() | {"num_labels": 10**6})
    assert len(config.id2label) < 10


@for_every_model
def test_an_empty_model_takes_no_memory_for_its_weights(name: str) -> None:
    model = empty_model(load_config(CONFIGS[name].to_dict()))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert {buffer.device.type for buffer in model.buffers()} <= {"cpu"}
    assert not model.training
    assert torch.get_default_dtype() is torch.float32
