"""Which tensors a GGUF file has, by llama.cpp's names and in its order of rows. Knows no format.

Rows of q and k of Llama-type models are permuted: transformers turns the first half of a head against the second,
llama.cpp one dimension against the next. Whole rows move, so whatever is packed by rows moves with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gguf
from torch import Tensor

from studio.base.errors import ModelError
from studio.checkpoint.layers import Layer
from studio.export.gguf.families import Family

SUFFIXES = (".weight", ".bias")


@dataclass(frozen=True)
class Named:
    """A tensor of the model, and what it is called in the file."""

    layer: Layer
    name: str
    heads: int = 0
    """How many heads' rows are permuted, 0 where none are."""

    @property
    def rows_of_a_head(self) -> int:
        """How many rows move among each other, 1 where none move."""
        return self.layer.shape[0] // self.heads if self.heads else 1


def named_tensors(layers: Sequence[Layer], family: Family, config: Any) -> list[Named]:
    """Return every tensor with its name. Raises ModelError for one that llama.cpp has no name for."""
    names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    found = []
    for layer in layers:
        name = names.get_name(layer.name, try_suffixes=SUFFIXES)
        if name is None:
            raise ModelError("to_gguf_tensor", tensor=layer.name[:120], family=config.model_type)
        found.append(Named(layer, name, _heads(name, family, config)))
    return found


def _heads(name: str, family: Family, config: Any) -> int:
    if not family.permutes:
        return 0
    if ".attn_q." in name:
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if ".attn_k." in name else 0


def permuted(rows: Tensor, rows_of_a_head: int) -> Tensor:
    """Return rows [N, ...] of whole heads in ggml's order; 1 row of a head leaves them as they are."""
    if rows_of_a_head == 1:
        return rows
    heads = len(rows) // rows_of_a_head
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape).contiguous()
