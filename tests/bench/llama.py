"""A Llama of 7 billion random weights on the disk: ``Llama-2-7B``'s shapes, bf16, three shards."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from studio.checkpoint.tensor_writer import Slot, TensorFile

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "hidden_act": "silu", "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
}  # fmt: skip
SHARDS = 3
PIECE = 1 << 24
"""Weights made at once."""


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each tensor of the checkpoint."""
    wide, deep = 4096, 11008
    yield "model.embed_tokens.weight", (32000, wide)
    for block in range(32):
        before = f"model.layers.{block}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{before}.self_attn.{name}.weight", (wide, wide)
        for name in ("gate_proj", "up_proj"):
            yield f"{before}.mlp.{name}.weight", (deep, wide)
        yield f"{before}.mlp.down_proj.weight", (wide, deep)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{before}.{name}.weight", (wide,)
    yield "model.norm.weight", (wide,)
    yield "lm_head.weight", (32000, wide)


def slots() -> dict[str, Slot]:
    """Return the checkpoint's tensors, by name."""
    return {name: Slot("BF16", shape) for name, shape in shapes()}


def make(folder: Path) -> list[Path]:
    """Return the shards of the model in ``folder``, made when they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = list(slots().items())
    per_shard = -(-len(tensors) // SHARDS)
    weight_map, shards = {}, []
    for number in range(SHARDS):
        shard = folder / f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        some = tensors[number * per_shard : (number + 1) * per_shard]
        weight_map.update({name: shard.name for name, _ in some})
        shards.append(shard)
        if not shard.is_file():
            _write(shard, dict(some))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return shards


def _write(shard: Path, slots: dict[str, Slot]) -> None:
    partial = shard.with_suffix(".partial")
    generator = torch.Generator().manual_seed(len(slots))
    with TensorFile(partial, slots, {"format": "pt"}) as out:
        for name, slot in slots.items():
            count = slot.nbytes // 2
            for start in range(0, count, PIECE):
                piece = torch.empty(min(PIECE, count - start), dtype=torch.bfloat16)
                out.write(name, piece.normal_(0, 0.02, generator=generator), start)
        out.sync()
    partial.rename(shard)
