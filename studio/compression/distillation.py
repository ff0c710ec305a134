"""Scales and norms trained in the end against the original's predictions, all blocks together; codes stay as they are.

What rounding left is made up for where it costs nothing: a layout has its scales and norms anyway. The text is read
once more, a few windows a step; the loss is the KL divergence of the compressed model's predictions from the
original's. Both run block by block, forward and back, so that one block's gradients are in memory at a time; of the
rest there are the codes, what the original says at its end, and Adam's two numbers for each scale. What is not trained
(embedding, head, backups, experts held in one tensor) stands there as the file will have it.

Sources: training scales end to end after rounding, EfficientQAT (Chen et al. 2024); Adam (Kingma and Ba 2015). Knows
nothing of files or plans.
"""

import math
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from studio.base.progress import Progress
from studio.base.steps import held, relayed
from studio.calibration.token_weights import lots
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.row_reader import rows_of
from studio.compression.sequential import LayerReplaced, LayerRounded, round_sequentially
from studio.compression.trained_scale import TrainedScale
from studio.quantization.methods import Method
from studio.quantization.packing import PackedTensor
from studio.quantization.quantize import quantize
from studio.quantization.rounding import tensor_params_of
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
ROUNDING_SHARE = 0.1
"""Of the time, about, that goes before the training."""
STAGE = "distillation"
PARTS = 10_000
"""In which progress is counted."""
SEED = 0
"""Of the order in which windows are read."""


def distilled(
    checkpoint: Checkpoint,
    schemes: Mapping[str, Scheme],
    method: Method,
    tokens: Tensor,
    planned: Mapping[str, Scheme] | None = None,
) -> Generator[Progress | LayerRounded | LayerReplaced, None, None]:
    """Yield what ``round_sequentially`` does, scales trained after it, and the norms that were trained with them.

    ``tokens`` int64 [W, T] are read once by the training, and at most 128 windows of them by the rounding before.
    ``planned``: the schemes of all that the file will have rounded, as far as they are not in ``schemes``: training
    meets it so. Nothing but progress is yielded before the end, of the whole: its fraction never falls.
    Raises as ``round_sequentially`` does.
    """
    rounded: list[LayerRounded] = []
    replaced: list[LayerReplaced] = []
    farthest = 0.0
    chosen = torch.linspace(0, len(tokens) - 1, min(ROUNDED_ON, len(tokens)), dtype=torch.float64).round().long()
    with closing(round_sequentially(checkpoint, schemes, method, tokens[chosen])) as events:
        for event in events:
            if isinstance(event, Progress):
                farthest = max(farthest, ROUNDING_SHARE * (event.fraction or 0.0))
                yield _at(farthest, event)
            elif isinstance(event, LayerRounded):
                rounded.append(event)
            else:
                replaced.append(event)
    rest = {name: scheme for name, scheme in (planned or {}).items() if name not in {x.layer.name for x in rounded}}
    free: dict[str, list[PackedTensor]] = {}
    for layer in checkpoint.layers:
        if layer.name in rest:
            said = _at(ROUNDING_SHARE, Progress(STAGE, detail=layer.name))
            free[layer.name] = yield from held(_rounded_freely(checkpoint, layer, rest[layer.name], method), said)
    student = _Student(checkpoint, rounded, replaced, free)
    yield from _trained(checkpoint, student, tokens)
    yield from student.results(checkpoint)


def _at(fraction: float, event: Progress) -> Progress:
    """Return an event that stands at ``fraction`` of the whole."""
    return Progress(event.stage, round(fraction * PARTS), PARTS, event.detail)


def _rounded_freely(
    checkpoint: Checkpoint, layer: Layer, scheme: Scheme, method: Method
) -> Generator[int, None, list[PackedTensor]]:
    """Yield while a weight is rounded without its inputs; return it in pieces, row under row."""
    shared = yield from tensor_params_of(rows_of(checkpoint, layer), [scheme])
    how = method if scheme.mode.bits < 8 else Method.NEAREST
    pieces = []
    for rows in rows_of(checkpoint, layer):
        pieces.append(quantize(rows, scheme, shared.get(scheme), how).packed)
        yield len(pieces)
    return pieces


class _Student:
    """The compressed model's weights by layer, of which some can be trained."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        rounded: list[LayerRounded],
        replaced: list[LayerReplaced],
        free: Mapping[str, list[PackedTensor]],
    ) -> None:
        self._free = free
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
        if name in self._free:
            return torch.cat([piece.dequantize() for piece in self._free[name]])
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
    order = torch.randperm(len(tokens), dtype=torch.int64, generator=torch.Generator().manual_seed(SEED))
    steps = order.split(STEP)
    done, whole = 0, 4 * len(tokens)  # windows: once forward by the original, thrice as long by the student

    def at(windows: int, event: Progress) -> Progress:
        share = (done + windows * (event.fraction or 0.0)) / whole
        return _at(ROUNDING_SHARE + (1 - ROUNDING_SHARE) * share, event)

    targets = torch.empty(0, dtype=torch.float32)
    for lot in lots(checkpoint, tokens):
        said = yield from relayed(teacher.run(lot), partial(at, len(lot)))
        if not done:  # all at once: pieces that are joined in the end would be held twice
            targets = said.new_empty((len(tokens), *said.shape[1:]))
        targets[done : done + len(lot)] = said
        done += len(lot)
    model = BlockModel(checkpoint, fast_dtype(), held=student.held)
    optimizer = torch.optim.Adam(student.parameters, lr=RATE, betas=BETAS, eps=1e-12)
    for number, windows in enumerate(steps):
        wave = 0.5 * (1 + math.cos(math.pi * number / len(steps)))
        for group in optimizer.param_groups:
            group["lr"] = RATE * wave * min(1.0, (number + 1) / WARM_UP)
        with closing(teacher.logits(targets[windows].reshape(1, -1, targets.shape[-1]), LOSS_TOKENS)) as logits:

            def gradient(said: Tensor, logits: Iterator[Tensor] = logits) -> Tensor:
                """Of KL(original ‖ compressed), the sum over tokens: Adam does not ask for its unit."""
                return said.float().softmax(-1).sub_(next(logits).float().softmax(-1)).to(said.dtype)

            yield from relayed(model.run_backward(tokens[windows], gradient), partial(at, 3 * len(windows)))
        done += 3 * len(windows)
        optimizer.step()
        optimizer.zero_grad()
