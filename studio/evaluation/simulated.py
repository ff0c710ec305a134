"""A model that runs with its weights or the inputs of its layers rounded: a simulation in fp32. Knows no texts.

It says what the *numbers* lose: each is rounded to the levels that a real kernel would hold and multiplied in fp32, so
nothing here is faster or smaller. What is rounded: the weights within the model's blocks, and what each of those
layers is given. Experts that are stored as one tensor have no layer of their own; their inputs stay as they are.

Sources: inputs by token and weights by output channel, LLM.int8() (Dettmers et al. 2022), whose outlying channels
pass at 16 bits as in bitsandbytes' inference: the weights they meet are the rounded ones; kinds of tensor as in
QLLM-Eval (Li et al., ICML 2024).
"""

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Layer
from studio.evaluation.figures import Pieces
from studio.quantization.quantize import quantize
from studio.quantization.scheme import WHOLE_CHANNEL, Mode, Scheme
from studio.runtime.block_model import BlockModel
from studio.runtime.decoder import MOST_TOKENS

OUTLIER = 6.0
"""What an input channel has to reach, anywhere in a text, to count as outlying (LLM.int8(), section 3)."""
GROUPS = (64, 32, WHOLE_CHANNEL)
"""Group sizes of 4-bit weights, the first that divides a layer's width."""


@dataclass(frozen=True)
class Rounding:
    """What is rounded to how many bits: ``Rounding("W4A8", weights=4, inputs=8)``; 16 leaves a kind alone."""

    name: str
    weights: int = 16
    inputs: int = 16
    outliers: bool = False
    """Whether input channels with outliers are left alone: the mixed decomposition of LLM.int8()."""


ROUNDINGS = (
    Rounding("W8", weights=8),
    Rounding("W4", weights=4),
    Rounding("A8", inputs=8),
    Rounding("A4", inputs=4),
    Rounding("W8A8", weights=8, inputs=8),
    Rounding("LLM.int8()", weights=8, inputs=8, outliers=True),
    Rounding("W4A8", weights=4, inputs=8),
    Rounding("W4A4", weights=4, inputs=4),
)


class SimulatedModel:
    """A checkpoint that runs from disk, one block in memory at a time, with a rounding."""

    def __init__(self, checkpoint: Checkpoint, rounding: Rounding) -> None:
        """Raises CheckpointError when the config makes no model."""
        inner = {name for layer in checkpoint.layers if _is_rounded(layer) for name in (layer.name, *layer.tied)}
        rounded = partial(rounded_weight, bits=rounding.weights) if rounding.weights < 16 else None
        self._model = BlockModel(checkpoint, torch.float32, rounded)
        if rounding.inputs < 16:
            for path, module in self._model.model.named_modules():
                if f"{path}.weight" in inner:
                    module.register_forward_pre_hook(partial(_round_input, rounding))

    def hidden(self, ids: Tensor) -> Generator[Any, None, Tensor]:
        """Yield while the model runs on ``ids`` int64 [B, T]; return what its head is given, fp32 [B, T, D]."""
        return (yield from self._model.run(ids))

    def logits(self, hidden: Tensor) -> Pieces:
        """Yield the logits of hidden states [T, D]; the head is not rounded."""
        for piece in self._model.logits(hidden.unsqueeze(0), MOST_TOKENS):
            yield piece[0]


def rounded_weight(layer: Layer, weight: Tensor, bits: int) -> Tensor:
    """Return a weight of a block rounded to nearest, in its own shape and fp32; anything else as it is.

    8 bits: symmetric, a scale for each output channel; 4 bits: asymmetric, in groups.
    """
    if not _is_rounded(layer):
        return weight
    matrix = weight.reshape(-1, weight.shape[-1])
    group = next(size for size in GROUPS if size == WHOLE_CHANNEL or matrix.shape[1] % size == 0)
    scheme = Scheme.of(Mode.INT8_SYM, WHOLE_CHANNEL) if bits == 8 else Scheme(Mode.INT4_ASYM, group)
    return quantize(matrix, scheme).packed.dequantize().float().reshape(weight.shape)


def rounded_inputs(values: Tensor, bits: int, outliers: bool = False) -> Tensor:
    """Return inputs [..., T, K] of texts rounded to nearest, symmetric, with a scale for each token.

    ``outliers``: channels that reach :data:`OUTLIER` at any token of a text stay exact in it and do not count for its
    scales; a layer that is given the tokens of several texts in a row [T, K] takes them for one.
    """
    most = 2 ** (bits - 1) - 1
    exact = torch.zeros(values.shape[-1], dtype=torch.bool, device=values.device)
    if outliers:
        exact = (values.abs() >= OUTLIER).any(-2, keepdim=True)
    plain = values.masked_fill(exact, 0)
    scale = plain.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny) / most
    return torch.where(exact, values, (plain / scale).round().clamp(-most, most) * scale)


def _is_rounded(layer: Layer) -> bool:
    return layer.block is not None and len(layer.shape) >= 2


def _round_input(rounding: Rounding, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not args or not isinstance(args[0], Tensor):
        return args
    return (rounded_inputs(args[0], rounding.inputs, rounding.outliers), *args[1:])
