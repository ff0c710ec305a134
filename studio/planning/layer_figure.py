"""A figure of every layer that the map can show, and how its numbers follow from what is known of the model.

Its words stand in the catalogues under ``figure.<name>``; its colours are the page's. Knows nothing of either.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, ratio_defining
from studio.planning.layer_losses import Figures, Steps
from studio.planning.plan import Plan
from studio.planning.sampled_survey import Interval, Sample
from studio.planning.survey_file import Survey
from studio.quantization.scheme import Scheme

Measure = Callable[[Checkpoint, Sequence[Scheme]], Steps]
"""What measures a figure over a short text, in a process of its own."""


@dataclass(frozen=True)
class Known:
    """What is known of a model's layers, and its plan."""

    plan: Plan
    survey: Survey = field(default_factory=Survey)
    sampled: Sample = field(default_factory=dict)
    measured: Mapping[str, Figures] = field(default_factory=dict)
    """Of each figure that is measured over a text, layer -> scheme -> number, as far as it goes."""
    weight_errors: Mapping[str, float] | None = None
    """In the plan's schemes: of the compressed copy where that is the plan's, else of the survey; None without one."""


@dataclass(frozen=True)
class LayerFigure:
    """What each layer's number is, and how it is written. A figure is an instance, or has a class of its own."""

    name: str
    """Also of its table in the catalogues: ``[figure.output]``."""
    adds_up: bool = False
    """Whether the numbers of layers have a sum that says something of the model."""
    bounds: tuple[float, float] | None = None
    """Ends of a logarithmic scale, the same for every plan and model, so that a colour always means the same number;
    None where the scale is linear, from 0 to the largest number on show."""
    map_format: str = ".2%"
    tick_format: str = ".1%"
    """Of the numbers beneath the map's scale."""
    card_format: str = ".2%"
    """Of what one scheme costs a layer."""
    is_always_on_card: bool = False
    """Whether a layer's card has its column also while nothing is known."""

    follows_method: ClassVar[bool] = False
    """Whether it is the plan's method's once that was carried out; others are of rounding to nearest always."""
    texts: ClassVar[tuple[str, ...]] = ("choice", "legend", "column", "hover")
    """What its table in the catalogues holds."""

    @property
    def measure(self) -> Measure | None:
        """What measures it over a short text, None where it takes none."""
        return None

    @property
    def keys(self) -> set[str]:
        """The catalogue's keys of its sentences."""
        texts = (*self.texts, *(("total",) if self.adds_up else ()))
        stage = {f"stage.{self.name}"} if self.measure is not None else set()
        return {f"figure.{self.name}.{key}" for key in texts} | stage

    def of_layer(self, known: Known, layer: str) -> Mapping[str, float] | None:
        """Return a layer's number in each scheme, empty where it cannot be measured, None while it is not known."""
        raise NotImplementedError

    def guessed(self, known: Known, layer: str) -> Mapping[str, Interval]:
        """Return what a sample tells of a layer's number in each scheme; often nothing."""
        return {}

    def estimates(self, known: Known) -> Mapping[str, Interval]:
        """Return the layers whose number under the plan is only estimated; often none."""
        return {}

    def on_map(self, known: Known) -> Mapping[str, float] | None:
        """Return what colours each layer under the plan, NaN where there is nothing to measure, 0 where it is kept.

        Layers that are not known yet are missing. None while there is nothing to show: the map then shows bits.
        """
        lines = self._lines(known)
        if not lines:
            return None
        found = kept(known.plan)
        for layer, scheme in known.plan.assignments:
            line = None if scheme is None else lines.get(layer.name)
            number = None if line is None else line.get(str(scheme)) if line else math.nan
            if number is not None:
                found[layer.name] = number
        return found

    def total(self, known: Known) -> float | None:
        """Return the sum over the linear weights that have a number, None while one is not known."""
        return planned_sum(known.plan, self._lines(known)) if self.adds_up else None

    def costs(self, known: Known, layers: Sequence[str]) -> dict[str, float]:
        """Return what each scheme costs: the first of some layers, or all of them where that adds up."""
        lines = [self.of_layer(known, name) or {} for name in (layers if self.adds_up else layers[:1])]
        shared = [scheme for scheme in lines[0] if all(scheme in line for line in lines)]
        return {scheme: sum(line[scheme] for line in lines) for scheme in shared}

    def _lines(self, known: Known) -> dict[str, Mapping[str, float]]:
        lines = ((a.layer.name, self.of_layer(known, a.layer.name)) for a in known.plan.assignments)
        return {name: line for name, line in lines if line is not None}


@dataclass(frozen=True)
class MeasuredFigure(LayerFigure):
    """A figure that the model has to read a short text for: measured in the background when it is first asked for."""

    by: Measure | None = None
    texts: ClassVar[tuple[str, ...]] = (*LayerFigure.texts, "waits", "measuring")

    @property
    def measure(self) -> Measure | None:
        return self.by

    def of_layer(self, known: Known, layer: str) -> Mapping[str, float] | None:
        return known.measured.get(self.name, {}).get(layer)


def kept(plan: Plan) -> dict[str, float]:
    """Return the weights that the plan keeps at 16 bits, which lose nothing."""
    return {a.layer.name: 0.0 for a in plan.assignments if a.scheme is None and a.layer.is_weight}


def planned_sum(plan: Plan | None, figures: Mapping[str, Mapping[str, float]]) -> float | None:
    """Return the sum, over the weights that have a number, of theirs in the plan's schemes.

    None while a linear one is not measured yet.
    """
    if plan is None or not figures:
        return None
    layers = ratio_defining([a.layer for a in plan.assignments], all_layers=True)
    found = [(layer, figures.get(layer.name), plan.scheme_of(layer.name)) for layer in layers]
    lines = [
        (line, scheme) for layer, line, scheme in found if layer.kind is Kind.LINEAR or str(scheme) in (line or {})
    ]
    known = [0.0 if scheme is None or line == {} else (line or {}).get(str(scheme)) for line, scheme in lines]
    return None if None in known else sum(number for number in known if number is not None)
