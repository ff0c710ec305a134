"""What is known of a model's layers, and the file that keeps it from one visit to the next. Measures nothing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from studio.base import json_cache
from studio.base.errors import SchemeError
from studio.base.settings import settings
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer, ratio_defining
from studio.planning.plan import Assignment
from studio.quantization.scheme import Scheme

VERSION = 1
"""Raised when the figures change their meaning: those kept on disk are then not read any more."""


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


def _is_sound(line: LayerSurvey) -> bool:
    numbers = (*line.errors.values(), line.sensitivity)
    return all(type(x) is float and math.isfinite(x) and x >= 0 for x in numbers)


def keep(checkpoint: Checkpoint, known: Survey) -> None:
    """Write the survey for the next visit, with what others wrote."""
    before = recall(checkpoint).layers
    layers = {name: {"errors": line.errors, "sensitivity": line.sensitivity} for name, line in before.items()}
    for name, line in known.layers.items():
        errors = {**before[name].errors, **line.errors} if name in before else line.errors
        layers[name] = {"errors": errors, "sensitivity": line.sensitivity}
    json_cache.keep(_file(checkpoint), {"version": VERSION, "layers": layers})


def _file(checkpoint: Checkpoint) -> Path:
    return settings().cache_dir / "survey" / f"{checkpoint.revision}.json"
