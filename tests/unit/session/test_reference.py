"""What is shipped of the built-in model: the presets as they are today, each of the bytes that its plan has."""

from studio.checkpoint.checkpoint import Checkpoint
from studio.export.targets import TARGETS
from studio.planning.plan import make_plan
from studio.session.reference import points_of, reference_points
from studio.session.session import Session
from tests.reference_points import wanted
from tests.steps import finish


def test_every_point_is_a_preset_of_today_with_its_bytes(builtin: Checkpoint) -> None:
    session = Session()
    finish(session.open("builtin"))
    there = {(point.target, point.choice): point for point in reference_points()}
    today = set(wanted(session))
    assert there.keys() <= today  # one of a preset that has changed says nothing any more
    for (target, choice), point in there.items():
        plan = make_plan(builtin.layers, choice)
        if plan.is_exact:
            assert point.nbytes == TARGETS[target].size(plan)
        assert 0 <= point.kld < 0.5
        assert 0 <= point.standard_error <= point.kld  # none: on whose grid the weights lie already
        assert 0.5 < point.same_top < 1


def test_no_other_model_has_any(builtin: Checkpoint) -> None:
    assert points_of(builtin) == reference_points()
    assert points_of(None) == ()
