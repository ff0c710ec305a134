"""GGUF -> safetensors: every tensor finds its place, and what cannot be is refused."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from studio.checkpoint.file_names import WEIGHTS
from tests.gguf_files import Arrays, arrays_of, metadata_of, write_gguf
from tests.gguf_models import CLOSE, TOKENIZER, Written, _logits, converted, distance, refusal


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


@pytest.mark.parametrize("extra", ["blk.0.attn_q_norm.weight", "blk.2.attn_q.weight", "x"])
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


def always(kind: str, name: str) -> str:
    return kind


def test_values_beyond_fp16_are_kept(tmp_path: Path) -> None:
    """BF16 stays BF16; of other types, what overflows in fp16 does."""
    for kind in ("BF16", "F32", "Q8_0"):
        written = Written("llama", "llama", tmp_path)
        with torch.no_grad():
            written.model.model.layers[0].mlp.down_proj.weight[3, 5] = 1e5
            if kind == "BF16":
                written.model.bfloat16().float()
        written.arrays = arrays_of(written.model, "llama")
        checkpoint = converted(written.file(f"{kind}.gguf", kind=partial(always, kind)))
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
