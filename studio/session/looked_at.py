"""The layer that a visitor looks at: its weights, against the levels of the plan's scheme. Knows no page."""

from dataclasses import dataclass

from studio.planning.choice import MAX_PATTERN, Pin
from studio.planning.plan import Assignment
from studio.planning.weight_levels import WeightLevels, weight_levels
from studio.session.planner import Planner


@dataclass(frozen=True)
class LookedAt:
    """A weight of the plan, and where its numbers lie."""

    assignment: Assignment
    levels: WeightLevels


def levels_of(planner: Planner, pattern: str) -> LookedAt | None:
    """Return the first weight of the plan that a pattern names; None where there is none, or it is not here.

    Raises CheckpointError for a damaged file.
    """
    plan, model = planner.plan, planner.model
    if plan is None or not model.is_here or not pattern or len(pattern) > MAX_PATTERN:
        return None
    pin = Pin(pattern, None)
    taken = next((a for a in plan.assignments if a.layer.is_weight and pin.takes(a.layer.name)), None)
    if taken is None or min(taken.layer.matrix) < 1:
        return None
    return LookedAt(taken, weight_levels(model.chosen, taken.layer, taken.scheme))
