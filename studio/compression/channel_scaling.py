"""Where a scale of a layer's input channels can be moved into what makes them, without a change of what is computed.

Only in blocks whose code is known: there a norm multiplies by its weight and nothing else reads its output, and what
``down_proj`` is given is linear in ``up_proj``'s rows. Knows nothing of rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from studio.checkpoint.layers import Layer

BLOCKS = frozenset({"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"})
READERS = {
    "mlp.up_proj": ("mlp.down_proj",),
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
"""What makes the channels -> everything that reads them, the end of the block first."""


@dataclass(frozen=True)
class Fold:
    """Channels that can be scaled: ``source`` is a norm's weight [K], or a weight with a row for each."""

    source: Layer
    readers: tuple[Layer, ...]


def folds(module: nn.Module, path: str, layers: Mapping[str, Layer], free: frozenset[str]) -> list[Fold]:
    """Return what can be folded in the block ``module`` at ``path``, whose weights named ``free`` may change."""
    if type(module).__name__ not in BLOCKS:
        return []
    foldable = []
    for source, readers in READERS.items():
        names = [f"{path}.{name}.weight" for name in (source, *readers)]
        own = module.get_submodule(source)
        is_linear = isinstance(own, nn.Linear)
        if getattr(own, "bias", None) is not None or not all(name in layers for name in names):
            continue
        if free.issuperset(names if is_linear else names[1:]):
            foldable.append(Fold(layers[names[0]], tuple(layers[name] for name in names[1:])))
    return foldable
