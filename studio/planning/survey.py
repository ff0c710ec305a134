"""For each layer and each scheme it could take: how far the weight moves. Measured once per model, then looked up.

With it comes NNCF's WEIGHT_QUANTIZATION_ERROR (``mixed_precision.py``, 3.4), the data-free default of its ratio rule:
one over the largest channel's mean squared error at int8_asym. It says which layers keep 8 bits; it is no error to
look at.
"""

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from studio.base import json_cache
from studio.base.errors import CheckpointError, SchemeError
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.steps import relayed
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer, ratio_defining
from studio.checkpoint.row_reader import rows_of
from studio.planning.layer_measured import LayerMeasured, reading
from studio.planning.plan import Assignment
from studio.quantization.quantize import Measured, base_schemes, channel_error, measure, relative
from studio.quantization.rounding import tensor_params_of
from studio.quantization.scheme import GROUP_SIZES, Mode, Scheme

VERSION = 1
"""Raised when the figures change their meaning: those kept on disk are then not read any more."""

Wanted = Mapping[str, Iterable[Scheme]]
"""Schemes to measure beside the usual ones, by layer."""


@dataclass(frozen=True)
class LayerSurvey:
    """What is known of one layer."""

    errors: dict[str, float]
    """Scheme -> relative error ‖W - Ŵ‖ / ‖W‖, Ŵ being what the stored numbers stand for."""
    sensitivity: float
    """NNCF's score; high stays at backup."""


@dataclass(frozen=True)
class Survey:
    """What is known of a model so far, by layer."""

    layers: dict[str, LayerSurvey] = field(default_factory=dict)

    def error(self, layer: str, scheme: Scheme | None) -> float | None:
        """Return a layer's relative error in a scheme, 0 where it is kept at 16 bits, None while it is not known."""
        if scheme is None:
            return 0.0
        known = self.layers.get(layer)
        return None if known is None else known.errors.get(str(scheme))

    def errors(self, assignments: Iterable[Assignment]) -> dict[str, float]:
        """Return the relative error of each compressed layer as far as it is known, by name."""
        found: dict[str, float] = {}
        for a in assignments:  # of ten thousand, at every move: hence no call for each
            if a.scheme is not None:
                known = self.layers.get(a.layer.name)
                error = None if known is None else known.errors.get(a.scheme.name)
                if error is not None:
                    found[a.layer.name] = error
        return found

    def sensitivities(self, layers: Iterable[Layer]) -> dict[str, float] | None:
        """Return the score of every weight that can follow a ratio, None while one is missing."""
        names = [layer.name for layer in ratio_defining(list(layers), all_layers=True)]
        if not all(name in self.layers for name in names):
            return None
        return {name: self.layers[name].sensitivity for name in names}

    def joined(self, layer: str, found: LayerSurvey) -> "Survey":
        """Return the survey with what was found of one more layer."""
        known = self.layers.get(layer)
        errors = found.errors if known is None else {**known.errors, **found.errors}
        return Survey({**self.layers, layer: LayerSurvey(errors, found.sensitivity)})


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
            _keep(checkpoint, known)
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
    _keep(checkpoint, Survey(found))
    return scores


def score(worst_channel: float) -> float:
    """Return NNCF's sensitivity of a weight from its largest channel's mean squared int8_asym error."""
    return 1 / (worst_channel + torch.finfo(torch.float32).eps)


def recall(checkpoint: Checkpoint) -> Survey:
    """Return what is kept from earlier visits: nothing where the file is not whole, or not this model's."""
    figures = json_cache.recall(_file(checkpoint))
    try:
        layers = figures["layers"]
        if figures["version"] != VERSION:
            raise ValueError
        shapes = {layer.name for layer in checkpoint.layers if layer.kind is not Kind.OTHER}
        found = {name: LayerSurvey(dict(line["errors"]), line["sensitivity"]) for name, line in layers.items()}
        if not found.keys() <= shapes or not all(_is_sound(line) for line in found.values()):
            raise ValueError
        for name in {name for line in found.values() for name in line.errors}:
            Scheme.parse(name)
        return Survey(found)
    except (ValueError, KeyError, TypeError, AttributeError, SchemeError):
        return Survey()


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


def _is_sound(line: LayerSurvey) -> bool:
    numbers = (*line.errors.values(), line.sensitivity)
    return all(type(x) is float and math.isfinite(x) and x >= 0 for x in numbers)


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


def _keep(checkpoint: Checkpoint, known: Survey) -> None:
    """Write the survey for the next visit, with what others wrote."""
    before = recall(checkpoint).layers
    layers = {name: {"errors": line.errors, "sensitivity": line.sensitivity} for name, line in before.items()}
    for name, line in known.layers.items():
        errors = {**before[name].errors, **line.errors} if name in before else line.errors
        layers[name] = {"errors": errors, "sensitivity": line.sensitivity}
    json_cache.keep(_file(checkpoint), {"version": VERSION, "layers": layers})


def _file(checkpoint: Checkpoint) -> Path:
    return settings().cache_dir / "survey" / f"{checkpoint.revision}.json"
