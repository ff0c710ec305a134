"""What a plan is predicted to lose follows its method, in linear weights alone."""

import pytest

from studio.checkpoint.layers import Kind
from studio.planning.choice import Choice
from studio.planning.layer_figure import planned_sum
from studio.planning.plan import make_plan
from studio.planning.predicted_loss import predicted_loss
from studio.planning.remaining_loss import remaining_loss
from studio.quantization.methods import BEST
from tests.unit.planning.test_allotment import damages
from tests.unit.planning.test_plan import a_model


def test_it_is_what_the_method_leaves_of_each() -> None:
    layers = a_model()
    known = damages(layers)
    nearest = make_plan(layers, Choice.of(mix="q4_k_m", method="nearest"))
    best = make_plan(layers, Choice.of(mix="q4_k_m", method="best"))
    assert predicted_loss(nearest, known) == planned_sum(nearest, known)
    expected = sum(
        known[a.layer.name][str(a.scheme)] * (remaining_loss(a.scheme, BEST) if a.layer.kind is Kind.LINEAR else 1)
        for a in best.assignments
        if a.scheme is not None
    )
    assert predicted_loss(best, known) == pytest.approx(expected)
    assert expected < (predicted_loss(nearest, known) or 0)


def test_it_is_not_known_before_all_linear_weights_are() -> None:
    layers = a_model()
    known = damages(layers, without="b.1.q_proj.weight")
    assert predicted_loss(make_plan(layers, Choice.of(mix="q4_k_m")), known) is None
    assert predicted_loss(make_plan(layers, Choice.of(mix="q4_k_m")), {}) is None
