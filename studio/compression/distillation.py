"""Scales and norms trained in the end against the original's predictions, all blocks together; codes stay as they are.

What rounding left is made up for where it costs nothing: a layout has its scales and norms anyway. The text is read
once more, a few windows a step; the loss is the KL divergence of the compressed model's predictions from the
original's. Both run block by block, forward and back, so that one block's gradients are in memory at a time; of the
rest there are the codes, what the original says at its end, and Adam's two numbers for each scale.

Sources: training scales end to end after rounding, EfficientQAT (Chen et al. 2024); Adam (Kingma and Ba 2015). Knows
nothing of files or plans.
"""

import math
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor

from studio.base.progress import Progress
from studio.calibration.token_weights import lots
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer
from studio.compression.sequential import LayerReplaced, LayerRounded, round_sequentially
from studio.compression.trained_scale import TrainedScale
from studio.quantization.methods import Method
from studio.quantization.scheme import Scheme
from studio.runtime.block_model import LOSS_TOKENS, BlockModel
from studio.runtime.machine import fast_dtype

ROUNDED_ON = 128
"""Windows, evenly spaced, whose statistics the rounding before is by: more tell it hardly more."""
STEP = 8
"""Windows a step."""
RATE = 1e-3
"""By what share a scale moves in a step at most, about; it falls to nothing as half a wave of a cosine."""
WARM_UP = 5
"""Steps in which the rate rises to that."""
BETAS = (0.9, 0.99)
NORM = re.compile(r"(norm|(^|[._])ln)(_?[a-z0-9]{1,4})?\.weight$", re.IGNORECASE)
"""``input_layernorm.weight``, ``norm1.weight``, ``LayerNorm.weight``, GPT-2's ``ln_1.weight`` and ``ln_f.weight``."""
SEED = 0
"""Of the order in which windows are read."""


def distilled(
    checkpoint: Checkpoint, schemes: Mapping[str, Scheme], method: Method, tokens: Tensor
) -> Generator[Progress | LayerRounded | LayerReplaced, None, None]:
    """Yield what ``round_sequentially`` does, scales trained after it, and the norms that were trained with them.

    ``tokens`` int64 [W, T] are read once by the training, and at most 128 windows of them by the rounding before.
    Nothing but progress is yielded before the end. Raises as ``round_sequentially`` does.
    """
    rounded: list[LayerRounded] = []
    replaced: list[LayerReplaced] = []
    chosen = torch.linspace(0, len(tokens) - 1, min(ROUNDED_ON, len(tokens)), dtype=torch.float64).round().long()
    with closing(round_sequentially(checkpoint, schemes, method, tokens[chosen])) as events:
        for event in events:
            if isinstance(event, Progress):
                yield event
            elif isinstance(event, LayerRounded):
                rounded.append(event)
            else:
                replaced.append(event)
    student = _Student(checkpoint, rounded, replaced)
    yield from _trained(checkpoint, student, tokens)
    yield from student.results(checkpoint)


class _Student:
    """The compressed model's weights by layer, of which some can be trained."""

    def __init__(self, checkpoint: Checkpoint, rounded: list[LayerRounded], replaced: list[LayerReplaced]) -> None:
        self._rounded, self._replaced = rounded, {event.layer.name: event for event in replaced}
        self._scales = {
            event.layer.name: TrainedScale(event.packed)
            for event in rounded
            if event.squared_error and event.packed.scheme.mode.has_free_scales  # what lost nothing stays as it is
        }
        self._fixed = {event.layer.name: event.packed for event in rounded if event.layer.name not in self._scales}
        self._norms: dict[str, tuple[Tensor, Tensor]] = {}
        is_lossy = any(event.squared_error for event in rounded)
        self._norm_layers = [layer for layer in checkpoint.layers if _is_norm(layer)] if is_lossy else []
        for layer in self._norm_layers:
            before = self._replaced.get(layer.name)
            weight = (checkpoint.read(layer) if before is None else before.tensor).float()
            self._norms[layer.name] = weight, torch.zeros_like(weight, requires_grad=True)

    @property
    def parameters(self) -> list[Tensor]:
        return [scale.growth for scale in self._scales.values()] + [growth for _, growth in self._norms.values()]

    def held(self, layer: Layer) -> Tensor | None:
        """Return a layer's tensor as it is now, None where it is the original's."""
        name = layer.name
        if name in self._scales:
            with torch.enable_grad():
                return self._scales[name].dense()
        if name in self._norms:
            weight, growth = self._norms[name]
            with torch.enable_grad():
                return weight * (1 + growth)
        if name in self._fixed:
            return self._fixed[name].dequantize()
        return self._replaced[name].tensor if name in self._replaced else None

    def results(self, checkpoint: Checkpoint) -> Iterator[LayerRounded | LayerReplaced]:
        """Yield everything as it is in the end, errors anew."""
        for event in self._rounded:
            scale = self._scales.get(event.layer.name)
            if scale is None:
                yield event
                continue
            packed = scale.packed()
            difference = packed.dequantize() - checkpoint.read(event.layer).float()
            yield replace(event, packed=packed, squared_error=float(difference.square_().sum()))
        for layer in self._norm_layers:
            weight, growth = self._norms[layer.name]
            trained = (weight * (1 + growth.detach())).to(checkpoint.saved_dtype(layer))
            yield LayerReplaced(layer, torch.where(trained.isfinite(), trained, weight.to(trained.dtype)))
        yield from (event for name, event in self._replaced.items() if name not in self._norms)


def _is_norm(layer: Layer) -> bool:
    """Return whether a tensor that is kept multiplies what a norm has made even, channel by channel."""
    return layer.kind is Kind.OTHER and len(layer.shape) == 1 and NORM.search(layer.name) is not None


def _trained(checkpoint: Checkpoint, student: _Student, tokens: Tensor) -> Generator[Progress, None, None]:
    """Yield while the student is trained on ``tokens`` [W, T]."""
    if not student.parameters:
        return
    teacher = BlockModel(checkpoint, fast_dtype())
    said = []
    for lot in lots(checkpoint, tokens):
        said.append((yield from teacher.run(lot)))
    targets = torch.cat(said)
    model = BlockModel(checkpoint, fast_dtype(), held=student.held)
    optimizer = torch.optim.Adam(student.parameters, lr=RATE, betas=BETAS, eps=1e-12)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(SEED))
    steps = order.split(STEP)
    for number, windows in enumerate(steps):
        wave = 0.5 * (1 + math.cos(math.pi * number / len(steps)))
        for group in optimizer.param_groups:
            group["lr"] = RATE * wave * min(1.0, (number + 1) / WARM_UP)
        with closing(teacher.logits(targets[windows].reshape(1, -1, targets.shape[-1]), LOSS_TOKENS)) as logits:

            def gradient(said: Tensor, logits: Iterator[Tensor] = logits) -> Tensor:
                """Of KL(original ‖ compressed), the sum over tokens: Adam does not ask for its unit."""
                return said.float().softmax(-1).sub_(next(logits).float().softmax(-1)).to(said.dtype)

            yield from model.run_backward(tokens[windows], gradient)
        optimizer.step()
        optimizer.zero_grad()
