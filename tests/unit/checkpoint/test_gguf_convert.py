"""GGUF -> safetensors: every tensor finds its place, positions turn as the file says, and what cannot be is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from studio.base.errors import CheckpointError
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.gguf import convert
from studio.checkpoint.gguf.convert import build, save_tokenizer, save_weights
from studio.checkpoint.gguf.model import TOKENS, read_gguf_model
from tests.conftest import tiny_config, tiny_tokenizer
from tests.gguf_files import Arrays, arrays_of, metadata_of, write_gguf

TEXT = torch.arange(3, 203)[None] % 300
CLOSE = 2e-3
"""Relative error of centred logits with weights in 16 bits; a lost rotation gives 0.5."""
TOKENIZER = tiny_tokenizer()


class Written:
    """A tiny model and the GGUF file made of it."""

    def __init__(self, kind: str, architecture: str, folder: Path, **settings: Any) -> None:
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        vocabulary = len(TOKENIZER)
        others = {"qwen3_moe": _moe, "starcoder2": _starcoder}
        config = others[kind](vocabulary) if kind in others else tiny_config(kind, vocabulary, **settings)
        self.model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        with torch.no_grad():
            for name, values in self.model.named_parameters():
                if values.ndim > 1:
                    values.normal_(0, (0.7 if "embed" in name else 1.2 / values.shape[-1] ** 0.5))
                else:
                    values.add_(0.15 * torch.randn_like(values))
        self.folder, self.architecture = folder, architecture
        self.arrays: Arrays = arrays_of(self.model, architecture)
        self.metadata: dict[str, Any] = metadata_of(self.model, TOKENIZER)

    def file(self, name: str = "m.gguf", kind: Callable[[str], str] = lambda name: "F16", **metadata: Any) -> Path:
        """Write the file; ``metadata`` by names with ``__`` for a dot are added, None takes one away."""
        more = {f".{key.replace('__', '.')}": value for key, value in metadata.items()}
        return write_gguf(self.folder / name, self.architecture, self.metadata | more, self.arrays, kind)

    def logits(self) -> Tensor:
        return _logits(self.model)


def _moe(vocabulary: int) -> Any:
    from transformers import Qwen3MoeConfig

    return Qwen3MoeConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2,
        norm_topk_prob=True, max_position_embeddings=256, mlp_only_layers=[],
    )  # fmt: skip


def _starcoder(vocabulary: int) -> Any:
    """Return a config whose base of rotations transformers' reader of GGUF passes by."""
    from transformers import Starcoder2Config

    return Starcoder2Config(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
    )  # fmt: skip


def _logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=TEXT).logits
    return found - found.mean(-1, keepdim=True)


def converted(file: Path) -> Checkpoint:
    """Do what the converting process does, in this one and without its limits."""
    folder = file.with_suffix("")
    folder.mkdir()
    built = build(read_gguf_model(file, keep=(TOKENS,)))
    save_tokenizer(built, folder)
    save_weights(built, folder)
    return of_folder(folder)


def distance(file: Path, truth: Tensor) -> float:
    """Return the relative error of the converted model's logits."""
    from transformers import AutoModelForCausalLM

    folder = converted(file).path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return float((_logits(model) - truth).norm() / truth.norm())


def refusal(file: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as refused:
        converted(file)
    return refused.value


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        ("llama", "llama"),
        ("qwen3", "qwen3"),
        ("phi3", "phi3"),
        ("gemma3_text", "gemma3"),
        ("starcoder2", "starcoder2"),
        ("qwen3_moe", "qwen3moe"),
    ],
)
def test_a_converted_model_answers_as_the_one_it_was_made_of(kind: str, architecture: str, tmp_path: Path) -> None:
    written = Written(kind, architecture, tmp_path)
    if kind == "qwen3_moe":
        written.metadata |= {
            ".expert_count": 4, ".expert_used_count": 2, ".expert_feed_forward_length": 32, ".feed_forward_length": 96,
        }  # fmt: skip
    assert distance(written.file(), written.logits()) < CLOSE


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


@pytest.mark.parametrize(
    "lost",
    [
        "blk.1.ffn_norm.weight",
        "blk.0.attn_q.weight",
        "output_norm.weight",
        "token_embd.weight",
        "blk.1.ffn_down.weight",
    ],
)
def test_a_missing_tensor_is_named(lost: str, tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    del written.arrays[lost]
    refused = refusal(written.file())
    assert refused.key == "gguf_tensor_missing"
    assert lost in str(refused)


@pytest.mark.parametrize("lost", ["gate", "up", "down"])
def test_missing_experts_are_named(lost: str, tmp_path: Path) -> None:
    written = Written("qwen3_moe", "qwen3moe", tmp_path)
    written.metadata |= {".expert_count": 4, ".expert_used_count": 2, ".expert_feed_forward_length": 32}
    del written.arrays[f"blk.1.ffn_{lost}_exps.weight"]
    assert f"blk.1.ffn_{lost}_exps" in str(refusal(written.file()))


@pytest.mark.parametrize("extra", ["blk.0.attn_q_norm.weight", "blk.0.attn_q.bias", "blk.2.attn_q.weight", "x"])
def test_a_tensor_without_a_place_is_named(extra: str, tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    written.arrays[extra] = np.ones(64, np.float32)
    refused = refusal(written.file())
    assert refused.key == "gguf_tensor_no_place"
    assert extra in str(refused)


def test_a_head_of_its_own_stays_one(tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path, tie_word_embeddings=False)
    checkpoint = converted(written.file())
    assert {layer.name: layer.tied for layer in checkpoint.layers}["lm_head.weight"] == ()
    tied = Written("llama", "llama", tmp_path, tie_word_embeddings=True)
    assert "output.weight" not in tied.arrays
    assert distance(tied.file("tied.gguf"), tied.logits()) < CLOSE


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({".embedding_length": 128}, "token_embd.weight"),
        ({".block_count": 1 << 20}, "llama.block_count"),
        ({".block_count": 0}, "llama.block_count"),
        ({".block_count": None}, "llama.block_count"),
        ({".context_length": 1 << 30}, "llama.context_length"),
        ({".rope.freq_base": float("nan")}, "llama.rope.freq_base"),
        ({".vocab_size": 9}, "llama.vocab_size"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, "2 tokens"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "tokenizer.ggml.token_type"),
        ({"tokenizer.ggml.eos_token_id": 1 << 20}, "tokenizer.ggml.eos_token_id"),
        ({"tokenizer.ggml.bos_token_id": "0"}, "tokenizer.ggml.bos_token_id"),
        ({"tokenizer.ggml.model": 7}, "tokenizer.ggml.model"),
        ({"tokenizer.chat_template": ["{{ 1 }}"]}, "tokenizer.chat_template"),
        ({".attention.head_count": 0}, "m.gguf"),
        ({".attention.head_count": 1 << 24}, "m.gguf"),
    ],
)
def test_metadata_that_do_not_fit_are_named(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    written.metadata |= changes
    assert named in str(refusal(written.file()))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({".context_length": 0}, "max_position_embeddings = 0"),
        ({".rope.freq_base": -1.0}, "rope_theta = -1.0"),
        ({".attention.head_count": 0}, "num_attention_heads = 0"),
    ],
)
def test_a_value_that_no_model_has_is_said_of_this_file(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    written.metadata |= changes
    sentence = refusal(written.file()).sentence()
    assert sentence.startswith(f"“m.gguf” says {named}, but it must be ")
    assert sentence.endswith("pick another model.")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokenizer.ggml.model": None}, "tokenizer.ggml.model"),
        ({"tokenizer.ggml.model": "novel"}, "novel"),
        ({"tokenizer.ggml.merges": ["a"]}, "m.gguf"),
        ({"tokenizer.ggml.merges": ["qqqqq zzzzz"]}, "qqqqq"),
    ],
)
def test_a_vocabulary_that_makes_no_tokenizer_is_called_so(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    written.metadata |= changes
    refused = refusal(written.file())
    assert refused.key == "gguf_tokenizer"
    assert named in str(refused)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    written.arrays["blk.1.ffn_up.weight"] = np.ones((64, 64), np.float32)
    assert "blk.1.ffn_up.weight" in str(refusal(written.file()))


def test_an_architecture_that_transformers_does_not_read_is_named(tmp_path: Path) -> None:
    written = Written("llama", "minicpm", tmp_path)
    refused = refusal(written.file())
    assert (refused.key, refused.values["architecture"]) == ("gguf_architecture", "minicpm")


def test_values_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    written.arrays["blk.1.ffn_norm.weight"][3] = np.nan
    refused = refusal(written.file())
    assert (refused.key, refused.values["tensor"]) == ("gguf_tensor_not_finite", "blk.1.ffn_norm.weight")


def test_values_beyond_fp16_are_kept(tmp_path: Path) -> None:
    """BF16 stays BF16; of other types, what overflows in fp16 does."""
    for kind in ("BF16", "F32", "Q8_0"):
        written = Written("llama", "llama", tmp_path)
        with torch.no_grad():
            written.model.model.layers[0].mlp.down_proj.weight[3, 5] = 1e5
            if kind == "BF16":
                written.model.bfloat16().float()
        written.arrays = arrays_of(written.model, "llama")
        checkpoint = converted(written.file(f"{kind}.gguf", kind=lambda name, kind=kind: kind))
        name = "model.layers.0.mlp.down_proj.weight"
        layer = next(layer for layer in checkpoint.layers if layer.name == name)
        stored = checkpoint.read(layer)
        assert stored.dtype == torch.bfloat16
        assert float(stored[3, 5]) == pytest.approx(1e5, rel=0.01)
        if kind == "BF16":
            assert torch.equal(stored.float(), written.model.state_dict()[name])
            assert {entry.dtype for entry in checkpoint.entries.values() if len(entry.shape) > 1} == {"BF16"}
        else:
            assert {entry.dtype for entry in checkpoint.entries.values()} == {"BF16", "F16"}


def test_the_file_is_one_that_the_library_reads(tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    folder = converted(written.file()).path
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        values = file.get_tensor("model.layers.1.mlp.up_proj.weight")
    assert torch.equal(values, torch.from_numpy(written.arrays["blk.1.ffn_up.weight"]).half())


@pytest.mark.parametrize(
    ("keys", "ends"),
    [({}, 1), ({"tokenizer.ggml.eot_token_id": 5}, [1, 5]), ({"tokenizer.ggml.eom_token_id": 7}, [1, 7])],
)
def test_all_tokens_that_the_file_says_end_an_answer_do(keys: dict[str, int], ends: object, tmp_path: Path) -> None:
    from studio.checkpoint.checkpoint import read_json

    written = Written("llama", "llama", tmp_path)
    written.metadata |= keys
    folder = converted(written.file()).path
    assert read_json(folder / "generation_config.json")["eos_token_id"] == ends


LFM2 = {
    "operator_norm": "attn_norm", "ffn_norm": "ffn_norm", "feed_forward.w1": "ffn_gate", "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_output", "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm", "conv.conv": "shortconv.conv", "conv.in_proj": "shortconv.in_proj",
    "conv.out_proj": "shortconv.out_proj",
}  # fmt: skip


def write_lfm2(folder: Path, lost: str = "", more: str = "") -> tuple[Path, Tensor]:
    """Write a model of an architecture whose rearrangements only transformers' own loading carries out."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=len(TOKENIZER), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False, conv_L_cache=3,
        max_position_embeddings=256, attn_implementation="eager", rms_norm_eps=1e-5,
    )  # fmt: skip
    model = Lfm2ForCausalLM(config).eval()
    arrays: Arrays = {}
    for name, values in model.state_dict().items():
        if name.startswith("model.layers."):
            number, _, rest = name.removeprefix("model.layers.").partition(".")
            array = values.numpy().squeeze(1) if "conv.conv" in name else values.numpy()
            arrays[f"blk.{number}.{LFM2[rest.removesuffix('.weight')]}.weight"] = array
    arrays["token_embd.weight"] = model.model.embed_tokens.weight.detach().numpy()
    arrays["token_embd_norm.weight"] = model.model.embedding_norm.weight.detach().numpy()
    config.rms_norm_eps = config.norm_eps
    metadata = metadata_of(model, TOKENIZER) | {".attention.head_count_kv": [0, 2], ".shortconv.l_cache": 3}
    arrays.pop(lost, None)
    if more:
        arrays[more] = np.ones(64, np.float32)
    return write_gguf(folder / "m.gguf", "lfm2", metadata, arrays), _logits(model)


def test_a_model_that_transformers_loads_itself_answers_the_same(tmp_path: Path) -> None:
    assert distance(*write_lfm2(tmp_path)) < CLOSE


@pytest.mark.parametrize(
    ("lost", "more", "named"),
    [
        ("blk.1.ffn_norm.weight", "", "model.layers.1.ffn_norm.weight"),
        ("", "blk.0.attn_q_norm.weight", "self_attn.q_layernorm"),
    ],
)
def test_of_such_a_model_too_every_tensor_has_its_place(lost: str, more: str, named: str, tmp_path: Path) -> None:
    file, _ = write_lfm2(tmp_path, lost, more)
    assert named in str(refusal(file))


def test_a_tiny_vocabulary_gets_seconds_and_a_large_one_more(tmp_path: Path) -> None:
    """A small file that lies is ended soon, whatever its tokens make of the library."""
    from dataclasses import replace

    from studio.checkpoint.gguf.header import Array

    model = read_gguf_model(Written("llama", "llama", tmp_path).file())
    assert model.tokens == len(TOKENIZER)
    assert model.tokenizer_seconds == 5
    first = replace(model.parts[0], metadata=model.metadata | {TOKENS: Array(TOKENS, 262_144)})
    assert replace(model, parts=(first,)).tokenizer_seconds >= 60


def test_a_tiny_files_memory_ends_within_a_gigabyte(tmp_path: Path) -> None:
    import resource

    file = Written("llama", "llama", tmp_path).file()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        convert._limit_memory(read_gguf_model(file))
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        assert 900e6 < limit - convert._data_bytes() < 1.1e9
        with pytest.raises(MemoryError):
            bytearray(8_000_000_000)  # far more: what other tests held may be given back meanwhile
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
