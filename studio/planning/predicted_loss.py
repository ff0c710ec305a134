"""What a plan is predicted to lose by the method that it is carried out by, nats a token. Knows no budget."""

from collections.abc import Mapping

from studio.checkpoint.layers import Kind
from studio.planning.layer_figure import planned_sum
from studio.planning.plan import Plan
from studio.planning.remaining_loss import remaining_loss
from studio.quantization.methods import WINDOWS


def predicted_loss(
    plan: Plan, damages: Mapping[str, Mapping[str, float]], windows: int | None = WINDOWS
) -> float | None:
    """Return the sum of the damages of the plan's weights, by layer and scheme, times what its method leaves of each.

    ``windows``: how many stretches of text its method has, None for all that it asks for.

    None while one of a linear weight is not known.
    """
    method = plan.choice.method
    left: dict[str, Mapping[str, float]] = dict(damages)
    for a in plan.assignments:
        if a.scheme is not None and a.layer.kind is Kind.LINEAR and a.layer.name in damages:
            share = remaining_loss(a.scheme, method, windows)
            left[a.layer.name] = {scheme: share * damage for scheme, damage in damages[a.layer.name].items()}
    return planned_sum(plan, left)
