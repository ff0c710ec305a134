"""For each layer and each scheme it could take: how far the weight moves. Measured once per model, then looked up.

With it comes NNCF's WEIGHT_QUANTIZATION_ERROR (``mixed_precision.py``, 3.4), the data-free default of its ratio rule:
one over the largest channel's mean squared error at int8_asym. It says which layers keep 8 bits; it is no error to look
at. Knows no plan, and nothing of what an error does to the answers.
"""

import math
from collections.abc import Generator, Iterable, Mapping, Sequence

import torch

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.base.steps import relayed
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Layer, ratio_defining
from studio.checkpoint.row_reader import rows_of
from studio.planning.layer_measured import LayerMeasured, reading
from studio.planning.survey_file import LayerSurvey, Survey, keep, recall
from studio.quantization.quantize import Measured, base_schemes, channel_error, measure, relative
from studio.quantization.rounding import tensor_params_of
from studio.quantization.scheme import GROUP_SIZES, Mode, Scheme

Wanted = Mapping[str, Iterable[Scheme]]
"""Schemes to measure beside the usual ones, by layer."""


def candidates(layer: Layer, mode: Mode | None = None) -> list[Scheme]:
    """Return the schemes a layer is measured in from the start, and those of ``mode``: at every group that fits it."""
    width = layer.matrix[1]
    schemes = base_schemes(width, GROUP_SIZES)
    more = [Scheme.of(mode, size) for size in (GROUP_SIZES if mode.is_grouped else (0,))] if mode else []
    return schemes + [scheme for scheme in more if scheme not in schemes and scheme.fits(width)]


def survey(
    checkpoint: Checkpoint, known: Survey | None = None, wanted: Wanted | None = None
) -> Generator[Progress | LayerMeasured[LayerSurvey], None, Survey]:
    """Yield each layer as it is measured, linear ones first, and return what is known of all of them.

    Of what is ``known`` nothing is measured again. Closing the generator keeps what was found. Raises CheckpointError
    for a damaged file or weights that are not numbers.
    """
    known = Survey(dict((known or recall(checkpoint)).layers))
    missing = {layer: _missing(layer, known, wanted or {}) for layer in ratio_defining(checkpoint.layers, True)}
    missing = {layer: schemes for layer, schemes in missing.items() if schemes}
    total = sum(layer.numel for layer in missing)
    done = 0
    try:
        for layer, schemes in missing.items():
            passes = 1 + any(scheme.mode.needs_whole for scheme in schemes)
            say = reading("survey", layer.name, done, total, passes)
            sums = yield from relayed(_measured(checkpoint, layer, schemes), say)
            done += layer.numel
            found = _found(layer, sums)
            before = known.layers.get(layer.name)
            errors = found.errors if before is None else {**before.errors, **found.errors}
            known.layers[layer.name] = LayerSurvey(errors, found.sensitivity)
            yield LayerMeasured(layer.name, known.layers[layer.name], Progress("survey", done, total, layer.name))
    finally:
        if missing:
            keep(checkpoint, known)
    return known


def sensitivities(checkpoint: Checkpoint) -> Generator[Progress, None, dict[str, float]]:
    """Yield each layer and return NNCF's score of every weight that can follow a ratio: a survey of nothing else.

    Raises CheckpointError for a damaged file or weights that are not numbers.
    """
    layers = ratio_defining(checkpoint.layers, True)
    known = recall(checkpoint)
    before = known.sensitivities(checkpoint.layers)
    if before is not None:
        return before
    total = sum(layer.numel for layer in layers)
    done = 0
    scores: dict[str, float] = {}
    for layer in layers:
        worst = 0.0
        for weight in rows_of(checkpoint, layer):
            worst = max(worst, _finite(channel_error(weight), layer))
            done += weight.numel()
            yield Progress("rank", done, total, layer.name)
        scores[layer.name] = score(worst)
    found = {name: known.layers.get(name) or LayerSurvey({}, number) for name, number in scores.items()}
    keep(checkpoint, Survey(found))
    return scores


def score(worst_channel: float) -> float:
    """Return NNCF's sensitivity of a weight from its largest channel's mean squared int8_asym error."""
    return 1 / (worst_channel + torch.finfo(torch.float32).eps)


def _measured(checkpoint: Checkpoint, layer: Layer, schemes: Sequence[Scheme]) -> Generator[int, None, Measured | None]:
    """Yield the weights seen but for the last, each twice where it is read twice; return the sums, None of no rows."""
    sums: Measured | None = None
    tensor_params = yield from tensor_params_of(rows_of(checkpoint, layer), schemes)
    seen = layer.numel if tensor_params else 0
    whole = seen + layer.numel
    for weight in rows_of(checkpoint, layer):
        part = measure(weight, schemes, tensor_params)
        sums = part if sums is None else sums + part
        seen += weight.numel()
        if seen < whole:
            yield seen
    return sums


def _missing(layer: Layer, known: Survey, wanted: Wanted) -> list[Scheme]:
    """Return the schemes a layer is still to be measured in."""
    line = known.layers.get(layer.name)
    asked = dict.fromkeys((*candidates(layer), *wanted.get(layer.name, ())))
    return [scheme for scheme in asked if line is None or str(scheme) not in line.errors]


def _found(layer: Layer, sums: Measured | None) -> LayerSurvey:
    if sums is None:  # a weight without rows
        return LayerSurvey({}, score(0.0))
    _finite(sums.square, layer)
    errors = {str(s): relative(_finite(d, layer), sums.square) for s, d in sums.differences.items()}
    return LayerSurvey(errors, score(_finite(sums.channel_error, layer)))


def _finite(number: float, layer: Layer) -> float:
    if not math.isfinite(number):
        raise CheckpointError("not_finite", tensor=layer.source)
    return number
