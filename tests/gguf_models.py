"""Tiny models and the GGUF files made of them; what converting one gives, and why it is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from studio.base.errors import CheckpointError
from studio.checkpoint.checkpoint import Checkpoint, of_folder
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
        if hasattr(config, "query_pre_attn_scalar"):  # no file says it: a head's width, as llama.cpp has it
            config.query_pre_attn_scalar = config.head_dim
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
