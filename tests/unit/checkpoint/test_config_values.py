"""A value that no model can have is named with its key; "damaged" is said of nothing that is not."""

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import CheckpointError, ResourceError, UserError, printable
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.config import load_config
from studio.checkpoint.json_file import check_bytes, parse_json, read_json

TinyModel = Callable[[str], Path]

YARN = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 64}

WRONG: list[tuple[str, Any, str]] = [
    ("num_hidden_layers", -1, "num_hidden_layers"),
    ("num_hidden_layers", 0, "num_hidden_layers"),
    ("num_hidden_layers", 10**7, "num_hidden_layers"),
    ("num_hidden_layers", True, "num_hidden_layers"),
    ("hidden_size", "wide", "hidden_size"),
    ("hidden_size", 64.5, "hidden_size"),
    ("hidden_size", -64, "hidden_size"),
    ("vocab_size", 10**9, "vocab_size"),
    ("vocab_size", int("9" * 250), "vocab_size"),
    ("num_attention_heads", 0, "num_attention_heads"),
    ("num_key_value_heads", 3, "num_key_value_heads"),
    ("num_key_value_heads", 8, "num_key_value_heads"),
    ("num_key_value_heads", -2, "num_key_value_heads"),
    ("head_dim", 15, "head_dim"),
    ("head_dim", 1 << 23, "head_dim"),
    ("partial_rotary_factor", 1e6, "partial_rotary_factor"),
    ("rms_norm_eps", math.nan, "rms_norm_eps"),
    ("rms_norm_eps", [1], "rms_norm_eps"),
    ("rms_norm_eps", math.inf, "rms_norm_eps"),
    ("sliding_window", "64", "sliding_window"),
    ("hidden_act", "\x1b[31mred", "hidden_act"),
    ("tie_word_embeddings", "yes", "tie_word_embeddings"),
    ("rope_parameters", 5, "rope_parameters"),
    ("rope_parameters", YARN | {"factor": "2"}, "rope_parameters.factor"),
    ("rope_parameters", YARN | {"rope_theta": -1}, "rope_parameters.rope_theta"),
    ("rope_parameters", YARN | {"rope_theta": [1]}, "rope_parameters.rope_theta"),
    ("rope_parameters", YARN | {"rope_type": "whirl"}, "rope_parameters.rope_type"),
    ("rope_parameters", YARN | {"rope_type": 5}, "rope_parameters.rope_type"),
    ("rope_parameters", YARN | {"partial_rotary_factor": 1e6}, "rope_parameters.partial_rotary_factor"),
]


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A model's files, its config to be written anew."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "model"))


def refusal(folder: Path, **changes: Any) -> UserError:
    """Return what is said of a model whose config has these values."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        of_folder(folder)
    return caught.value


@pytest.mark.parametrize(("key", "value", "named"), WRONG, ids=[f"{key}={str(value)[:20]}" for key, value, _ in WRONG])
def test_a_wrong_value_is_named_with_its_key(folder: Path, key: str, value: Any, named: str) -> None:
    found = refusal(folder, **{key: value})
    assert found.key in ("wrong_config_value", "unaccepted_value", "bad_config_pair")
    assert found.values["key"] == named
    assert found.sentence().isprintable()
    assert len(found.sentence()) < 500


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_act": "sillu"}, """hidden_act = "sillu", which transformers does not accept (KeyError: 'sillu')"""),
        ({"rope_parameters": YARN | {"rope_type": "whirl"}}, "does not accept (KeyError: 'whirl')"),
        ({"layer_types": ["whirl", "full_attention"]}, "does not accept (ValueError: The `layer_types` entries must"),
        ({"dtype": "float99"}, "does not accept (AttributeError: module 'torch' has no attribute 'float99')"),
        ({"use_cache": 5}, "use_cache = 5, but it must be bool;"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_what_transformers_refuses_is_said_in_a_whole_sentence(folder: Path, changes: Any, said: str) -> None:
    found = refusal(folder, **changes).sentence()
    assert said in found
    assert "must be KeyError" not in found


DIVIDED_BY = [
    ("gemma2", "query_pre_attn_scalar"), ("gemma2", "attn_logit_softcapping"), ("gemma2", "final_logit_softcapping"),
    ("granite", "logits_scaling"), ("recurrent_gemma", "logits_soft_cap"), ("minicpm3", "dim_model_base"),
    ("modernbert-decoder", "global_rope_theta"), ("qwen3_moe", "decoder_sparse_step"),
]  # fmt: skip


@pytest.mark.parametrize("value", [0, -1.0, math.nan, 1e308])
@pytest.mark.parametrize(("family", "key"), DIVIDED_BY, ids=[key for _, key in DIVIDED_BY])
def test_what_is_divided_by_is_positive(family: str, key: str, value: float) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_config({"model_type": family, key: value})
    assert (caught.value.key, caught.value.values["key"]) == ("wrong_config_value", key)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gemma2", "final_logit_softcapping": None},
        {"model_type": "laguna", "moe_router_logit_softcapping": 0.0},
        {"model_type": "granite", "residual_multiplier": -0.5, "embedding_multiplier": 0.0},
    ],
    ids=str,
)
def test_what_may_be_nothing_or_negative_is_let_pass(config: dict[str, Any]) -> None:
    assert load_config(config).model_type == config["model_type"]


def test_a_factor_beyond_all_use_is_named() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_config({"model_type": "granite", "residual_multiplier": 1e300})
    assert caught.value.values["key"] == "residual_multiplier"


def test_labels_are_no_matter(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    lies = {"num_labels": 10**9, "id2label": {str(i): "x" for i in range(30_000)}, "to_dict": 5, "attribute_map": [1]}
    (folder / "config.json").write_text(json.dumps(config | lies))
    assert of_folder(folder).layers


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b'{"a": [' + b'"x",' * 500_000 + b'"x"]}', "too_many_values"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "too_deep"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
        (b"[1]", "not_an_object"),
        (b'{"a": 1', "damaged_file"),
        (b'{"a": "\xff"}', "damaged_file"),
        (b'{"a": "' + b"x" * 5_000_001 + b'"}', "file_too_large"),
    ],
    ids=["values", "depth", "endless_depth", "list", "cut_short", "encoding", "bytes"],
)
def test_a_file_is_bounded_before_it_is_believed(folder: Path, content: bytes, key: str) -> None:
    (folder / "config.json").write_bytes(content.replace(b"{", b'{"model_type": "llama", ', 1))
    with pytest.raises(CheckpointError) as caught:
        load_config(read_json(folder / "config.json"))
    assert caught.value.key == key


def test_a_number_of_thousands_of_digits_is_infinite() -> None:
    assert parse_json("config.json", b'{"a": ' + b"9" * 5000 + b"}") == {"a": math.inf}


def test_memory_that_ends_is_said_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr("studio.checkpoint.architecture.module_tree", no_room)
    with pytest.raises(ResourceError) as caught:
        of_folder(folder)
    assert caught.value.key == "out_of_memory"


def test_what_a_file_says_does_not_reach_the_screen_as_it_is() -> None:
    sentence = CheckpointError("missing_file", file="\x1b[2J\r\n\u202etxt\ud800" + "a" * 9999).sentence()
    assert sentence.isprintable()
    assert "\\x1b[2J\\r\\n\\u202etxt\\ud800" in sentence
    assert len(sentence) < 600
    assert printable("naïve 模型 “x”") == "naïve 模型 “x”"


VALUES: list[Any] = [
    None, True, 0, -1, 2**31, 2**63, 0.5, 1e308, math.nan, math.inf, "", "64", "\x1b[2J", "\ud800", "gelu",
    [], {}, [1], ["a"], [[[1]]], {"a": 1}, ["s"] * 300, {"full_attention": 5}, {"rope_type": "yarn"},
    {"rope_type": "dynamic", "factor": 1e308}, {"rope_type": "llama3", "factor": 0.0, "low_freq_factor": 1},
    {"rope_type": "longrope", "factor": 2, "long_factor": [1]},
]  # fmt: skip
MORE = (
    "rope_scaling", "layer_types", "sliding_window", "text_config", "dtype", "quantization_config", "architectures",
    "is_encoder_decoder", "to_dict", "sub_configs", "attribute_map", "partial_rotary_factor", "per_layer_config",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_config_says_is_a_model_or_one_sentence(folder: Path, seed: int) -> None:
    """A short run of a fuzz of 2,000: values of every type for every key."""
    config = json.loads((folder / "config.json").read_text())
    chance = random.Random(seed)
    for _ in range(12):
        changes = {chance.choice([*config, *MORE]): chance.choice(VALUES) for _ in range(chance.choice([1, 1, 2]))}
        (folder / "config.json").write_text(json.dumps(config | changes))
        said = sentence(folder)
        assert said.isprintable(), changes
        assert len(said) < 700, changes
        assert "damaged" not in said, changes


def sentence(folder: Path) -> str:
    """Return what is said of a model, nothing where it opens."""
    try:
        of_folder(folder)
    except UserError as error:
        return error.sentence()
    return ""


@pytest.mark.parametrize(("name", "limit"), [("recipe.json", 20_000_000), ("model.safetensors.index.json", 50_000_000)])
def test_each_kind_of_file_has_its_own_limit(name: str, limit: int) -> None:
    check_bytes(name, limit)
    with pytest.raises(CheckpointError) as caught:
        check_bytes(name, limit + 1)
    assert caught.value.key == "file_too_large"
