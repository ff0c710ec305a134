"""Tiny GGUF files as llama.cpp's converter writes them, to be changed in one place each. Knows no studio."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, quants
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "ffn_gate_inp", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
GEMMA = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
OUTER = {
    "lm_head.weight": "output.weight", "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight", "model.norm.bias": "output_norm.bias",
}  # fmt: skip


def arrays_of(model: Any, architecture: str) -> Arrays:
    """Return the model's tensors under GGUF's names, Llama's queries and keys in ggml's order of rows."""
    config, found = model.config, {}
    is_gemma = architecture.startswith("gemma")
    names = NAMES | (GEMMA if is_gemma else {})
    for name, tensor in model.state_dict().items():
        if name in model.all_tied_weights_keys:
            continue
        values = tensor.float().numpy() + (1 if is_gemma and name.endswith("norm.weight") else 0)
        if name in OUTER:
            found[OUTER[name]] = values
            continue
        number, _, rest = name.removeprefix("model.layers.").partition(".")
        if rest == "mlp.experts.gate_up_proj":
            gate, up = np.split(values, 2, axis=1)
            found |= {f"blk.{number}.ffn_gate_exps.weight": gate, f"blk.{number}.ffn_up_exps.weight": up}
            continue
        if rest == "mlp.experts.down_proj":
            found[f"blk.{number}.ffn_down_exps.weight"] = values
            continue
        base, _, leaf = rest.rpartition(".")
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(names[base])
        if architecture == "llama" and heads:
            halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        found[f"blk.{number}.{names[base]}.{leaf}"] = values
    return found


def metadata_of(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return what the converter says of a model; names with a dot before them are the architecture's own."""
    config = model.config
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    merges = [" ".join(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        ".block_count": config.num_hidden_layers,
        ".context_length": config.max_position_embeddings,
        ".embedding_length": config.hidden_size,
        ".feed_forward_length": config.intermediate_size,
        ".attention.head_count": config.num_attention_heads,
        ".attention.head_count_kv": config.num_key_value_heads,
        ".attention.layer_norm_rms_epsilon": getattr(config, "rms_norm_eps", None),
        ".attention.layer_norm_epsilon": getattr(config, "norm_epsilon", None),
        ".attention.key_length": head,
        ".attention.value_length": head,
        ".rope.dimension_count": head,
        ".rope.freq_base": float(config.rope_parameters.get("rope_theta", 1e6)),
        ".vocab_size": config.vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in tokenizer.all_special_tokens else 1 for token in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": tokenizer.chat_template,
    }


def write_gguf(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    kind: Callable[[str], str] = lambda name: "F16",
) -> Path:
    """Write a file; what is not a matrix is kept in fp32, a matrix in the type that ``kind`` names, or as its blocks
    where it is given as bytes. None leaves a key out."""
    writer = GGUFWriter(path, architecture)
    for key, value in metadata.items():
        name = f"{architecture}{key}" if key.startswith(".") else key
        if isinstance(value, list):
            writer.add_array(name, value)
        elif value is not None:
            kinds = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}
            writer.add_key_value(name, value, GGUFValueType[kinds[type(value)]])
    for name, values in arrays.items():
        stored = GGMLQuantizationType[kind(name) if values.ndim > 1 else "F32"]
        is_raw = values.dtype == np.uint8  # blocks as they stand, of a type that nobody quantizes to
        data = values if is_raw else quants.quantize(np.ascontiguousarray(values, np.float32), stored)
        writer.add_tensor(name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
