"""The weight error of each layer as a figure of the map: from the compressed copy, the survey, or a sample of rows.

Knows nothing of how a survey is made.
"""

from collections.abc import Mapping
from typing import ClassVar

from studio.planning.layer_figure import Known, LayerFigure, kept
from studio.planning.plan import Plan
from studio.planning.sampled_survey import Interval, Sample


class WeightError(LayerFigure):
    """‖W − Ŵ‖ / ‖W‖."""

    follows_method: ClassVar[bool] = True

    def of_layer(self, known: Known, layer: str) -> Mapping[str, float] | None:
        line = known.survey.layers.get(layer)
        return None if line is None else line.errors

    def guessed(self, known: Known, layer: str) -> Mapping[str, Interval]:
        line = known.sampled.get(layer)
        return {} if line is None else line.errors

    def estimates(self, known: Known) -> Mapping[str, Interval]:
        return estimates(known.plan, known.sampled, known.weight_errors)

    def on_map(self, known: Known) -> Mapping[str, float] | None:
        """Return the errors that are known of the plan, estimates where only those are."""
        guessed = self.estimates(known)
        whole = kept(known.plan)
        if not guessed and (known.weight_errors is None or not whole):
            return known.weight_errors
        return {**whole, **{name: each.error for name, each in guessed.items()}, **(known.weight_errors or {})}


def estimates(plan: Plan | None, sampled: Sample, measured: Mapping[str, float] | None) -> dict[str, Interval]:
    """Return the estimate of each layer in the plan's scheme that is sampled and not among the ``measured``."""
    found = {}
    for a in plan.assignments if plan is not None and sampled else ():
        line = sampled.get(a.layer.name)
        if line is not None and str(a.scheme) in line.errors and a.layer.name not in (measured or {}):
            found[a.layer.name] = line.errors[str(a.scheme)]
    return found


FIGURE = WeightError("weight", is_always_on_card=True)
