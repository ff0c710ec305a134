"""Weights rounded with what they are given, block after block: each block reads what the rounded ones before it say.

A block runs once as it is, while the second moments of its layers' inputs are summed; then its weights are rounded and
it runs again, so that the next one meets, and makes up for, the errors made so far. Only statistics are kept, and only
those of one block: what a block is given depends on how those before it were rounded, so that nothing of it (but the
first block's) is true of another plan or method, and keeping it on disk would save no visit anything. What depends on
model and text alone is kept, by ``activations``, ``evaluate``, ``self_generated`` and, for a method that weights
tokens, ``token_weights``, which are measured first. Knows nothing of files or plans.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from studio.base.assets import asset
from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.calibration.listeners import ActivationListener
from studio.calibration.output_moments import OutputMoments
from studio.calibration.texts import check_has_head, positions, read_text, token_ids, windows
from studio.calibration.token_weights import kept_weights
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer
from studio.compression.block_tuning import tuned_block
from studio.compression.channel_scaling import Fold, folds
from studio.quantization.methods import WINDOWS, Method
from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import Statistics
from studio.quantization.rounding.awq import channel_scales, scaled
from studio.quantization.rounding.methods import gptq_on
from studio.quantization.rounding.regained import regained
from studio.quantization.rounding.sign_round import Start
from studio.quantization.rounding.two_sided import two_sided
from studio.quantization.scheme import Scheme
from studio.runtime.block_model import BlockModel
from studio.runtime.machine import fast_dtype
from studio.runtime.module_hooks import Call

BUILTIN_TEXTS = (asset("calibration.txt"), asset("calibration-more.txt"))
WINDOW = 256
"""How long a stretch of text is read at once, in tokens."""


@dataclass(frozen=True)
class LayerReplaced:
    """A tensor kept at 16 bits whose values changed: scales of channels were folded into it."""

    layer: Layer
    tensor: Tensor
    """In the dtype that it is saved in."""


@dataclass(frozen=True)
class LayerRounded:
    """A weight is rounded."""

    layer: Layer
    packed: PackedTensor
    squared_error: float
    """‖W - Ŵ‖²."""
    squared_norm: float
    """‖W‖²."""


def round_sequentially(
    checkpoint: Checkpoint, schemes: Mapping[str, Scheme], method: Method, tokens: Tensor
) -> Generator[Progress | LayerRounded | LayerReplaced, None, None]:
    """Yield every linear weight of ``schemes`` (by name) as ``method`` rounds it, once its block has been reached.

    ``tokens`` int64 [W, T] is what the model reads. Weights that are given nothing, or only zeros, are not yielded, nor
    are those of experts held in one tensor. Raises CheckpointError when a file is damaged or a weight not finite.
    """
    model = BlockModel(checkpoint, fast_dtype())
    wanted = [
        layer
        for layer in checkpoint.layers
        if layer.name in schemes and layer.kind is Kind.LINEAR and len(layer.shape) == 2
    ]
    moments = OutputMoments(wanted) if method.rounding.is_two_sided else None
    also = None if moments is None else moments.add
    measured = kept_weights(checkpoint, wanted, tokens, also) if method.rounding.weighs_tokens else _unweighted()
    weights = yield from measured
    outputs = {} if moments is None else moments.statistics()
    listener = ActivationListener(
        model.model, wanted, partial(_weighted_statistics, weights), _merge, lambda name: id(weights.get(name))
    )
    pending: list[LayerRounded | LayerReplaced] = []
    layers_by_name = {layer.name: layer for layer in checkpoint.layers}

    def round_block(call: Call, pause: Callable[[], None], output: Any) -> Any:
        statistics = {layer: listener.heard[layer.name] for layer in wanted if layer.name in listener.heard}
        known = {layer: given for layer, given in statistics.items() if _is_in(layer, call.unit) and given.is_active}
        on_grid = _regained(checkpoint, known, schemes, pause)
        block_layers = [layer for layer in known if layer not in on_grid]
        rounded_so_far: dict[Layer, Start] = {}
        folded: dict[Layer, Tensor] = {}
        if method.rounding.scales_channels:
            scalable = frozenset(layer.name for layer in block_layers)
            for fold in folds(call.module, call.unit, layers_by_name, scalable):
                pause()
                _fold(checkpoint, fold, schemes, known, folded)
            for layer, tensor in folded.items():
                if layer.kind is Kind.OTHER:
                    model.replace(layer, tensor)
                    pending.append(LayerReplaced(layer, tensor))
        for layers in _same_input_and_scheme(block_layers, known, schemes):
            pause()
            dense = [folded[layer] if layer in folded else _read(checkpoint, layer) for layer in layers]
            scheme, given = schemes[layers[0].name], known[layers[0]]
            rounded_so_far |= (
                _two_sided(layers, dense, scheme, given, outputs, pause)
                if method.rounding.is_two_sided
                else _rounded(layers, dense, scheme, method, given)
            )
            if not method.rounding.is_tuned:
                _accept(rounded_so_far)
        for found in on_grid.values():
            _keep(found)
        with listener.paused():
            if rounded_so_far:
                tuned = tuned_block(call, rounded_so_far, weights.get(block_layers[-1].name), pause)
                _accept({layer: replace(start, rounded=tuned[layer]) for layer, start in rounded_so_far.items()})
            listener.forget()
            if not known:
                return output
            pause()
            return call.again()

    def _accept(rounded: dict[Layer, Start]) -> None:
        for layer, start in rounded.items():
            packed = pack(start.rounded, start.scheme)
            dense = packed.dequantize()
            model.replace(layer, dense)
            squared_error = float((dense - start.weight).square_().sum())
            pending.append(LayerRounded(layer, packed, squared_error, float(start.weight.square().sum())))
        if not method.rounding.is_tuned:
            rounded.clear()

    def _keep(found: LayerRounded) -> None:
        model.replace(found.layer, found.packed.dequantize())
        pending.append(found)

    run = model.run(tokens, round_block)
    try:
        for step in run:
            yield from _pop_all(pending)
            yield step
        yield from _pop_all(pending)
    finally:
        run.close()


def calibration_tokens(checkpoint: Checkpoint, text: str | None = None, count: int = WINDOWS) -> Tensor:
    """Return what calibrates: windows of a text, or of the built-in ones, int64 [W, T], W at most ``count``.

    T is 256, or as many positions as the model has.

    Raises TextError for a text that is too short, ModelError for a model without a language model's head,
    CheckpointError without a tokenizer.
    """
    check_has_head(checkpoint)
    texts = [text] if text is not None else [read_text(asset) for asset in BUILTIN_TEXTS]
    ids = torch.cat([token_ids(checkpoint, one) for one in texts])
    return windows(ids, count, positions(checkpoint, WINDOW))


def _is_in(layer: Layer, unit: str) -> bool:
    return f"{layer.name}.".startswith(f"{unit}.")


def _unweighted() -> Generator[Progress, None, dict[str, Tensor]]:
    yield from ()
    return {}


def _pop_all(pending: list[LayerRounded | LayerReplaced]) -> Iterable[LayerRounded | LayerReplaced]:
    while pending:
        yield pending.pop(0)


def _read(checkpoint: Checkpoint, layer: Layer) -> Tensor:
    weight = checkpoint.read(layer).float()
    if not bool(weight.isfinite().all()):
        raise CheckpointError("not_finite", tensor=layer.source)
    return weight


def _regained(
    checkpoint: Checkpoint, layers: Iterable[Layer], schemes: Mapping[str, Scheme], pause: Callable[[], None]
) -> dict[Layer, LayerRounded]:
    """Return the weights that lie on a grid of their scheme already: no method can do better, so none is asked."""
    found = {}
    for layer in layers:
        pause()
        weight = checkpoint.read(layer)
        whole = regained(weight, schemes[layer.name])
        if whole is not None:
            packed = pack(whole, schemes[layer.name])
            found[layer] = LayerRounded(layer, packed, 0.0, float(weight.float().square().sum()))
    return found


def _fold(
    checkpoint: Checkpoint,
    fold: Fold,
    schemes: Mapping[str, Scheme],
    known: dict[Layer, Statistics],
    folded: dict[Layer, Tensor],
) -> None:
    """Find scales for the channels of a fold; put the weights that follow into ``folded``, and what they are given
    then into ``known``."""
    first = fold.readers[0]
    weights = [folded.get(layer, _read(checkpoint, layer)) for layer in fold.readers]
    scales = channel_scales(torch.cat(weights), schemes[first.name], known[first])
    source = folded.get(fold.source, _read(checkpoint, fold.source))
    if fold.source.kind is Kind.OTHER:  # it is saved in fewer bits: the weights make up for what it then is
        kept = (source / scales).to(checkpoint.saved_dtype(fold.source))
        scales = torch.where(kept == 0, 1.0, source / kept.float())
        folded[fold.source] = torch.where(kept == 0, source.to(kept.dtype), kept)
    else:
        folded[fold.source] = source / scales.unsqueeze(1)
    given = scaled(known[first], scales)
    for layer, weight in zip(fold.readers, weights, strict=True):
        folded[layer], known[layer] = weight * scales, given


def _rounded(
    layers: list[Layer], weights: list[Tensor], scheme: Scheme, method: Method, statistics: Statistics
) -> dict[Layer, Start]:
    """Return weights that share scheme and statistics, rounded as one: its rows do not see each other."""
    calibrated = method.calibrated
    if calibrated is None:
        raise ValueError(f"{method} takes no statistics")
    whole = calibrated(torch.cat(weights), scheme, statistics)
    results = {}
    start = 0
    for layer, weight in zip(layers, weights, strict=True):
        rows = slice(start, start := start + len(weight))
        results[layer] = Start(weight, scheme, whole.rows(rows))
    return results


def _two_sided(
    layers: list[Layer],
    weights: list[Tensor],
    scheme: Scheme,
    statistics: Statistics,
    outputs: Mapping[str, Statistics],
    pause: Callable[[], None],
) -> dict[Layer, Start]:
    """Return weights that share scheme and statistics, rounded side by side, each with its outputs' moments in view."""
    moments = [outputs.get(layer.name) for layer in layers]
    found = two_sided(weights, scheme, statistics, moments, gptq_on, pause)
    triples = zip(layers, weights, found, strict=True)
    return {layer: Start(weight, scheme, rounded) for layer, weight, rounded in triples}


def _same_input_and_scheme(
    layers: list[Layer], known: Mapping[Layer, Statistics], schemes: Mapping[str, Scheme]
) -> list[list[Layer]]:
    """Return the layers in lots that can be rounded as one: the same input and scheme, nothing shared by a tensor."""
    lots: dict[tuple[object, ...], list[Layer]] = {}
    for layer in layers:
        scheme = schemes[layer.name]
        alone = layer.name if scheme.mode.stored_as.tensor_params is not None else ""
        lots.setdefault((id(known[layer]), scheme, alone), []).append(layer)
    return list(lots.values())


def _weighted_statistics(weights: Mapping[str, Tensor], name: str, rows: Tensor) -> Statistics:
    """Return the statistics of what a layer is given, [R, K], each token with its weight where there is one."""
    flat, own = rows.float(), weights.get(name)
    weighted = flat
    if own is not None and len(own) == len(flat):
        weighted = flat * (own / own.mean()).to(flat.device).unsqueeze(1)
    return Statistics((weighted.T @ flat).div_(len(flat)), len(flat))


def _merge(before: Statistics, more: Statistics) -> Statistics:
    """Return the statistics of both: a block may run its layer more than once."""
    tokens = before.tokens + more.tokens
    return Statistics((before.hessian * before.tokens + more.hessian * more.tokens) / tokens, tokens)
