"""The layer that a visitor looks at: the first that a pattern names, in the plan's scheme."""

from collections.abc import Callable
from pathlib import Path

from studio.checkpoint.checkpoint import of_folder
from studio.planning.choice import Choice, Pin
from studio.quantization.scheme import Mode, Scheme
from studio.session.looked_at import levels_of
from studio.session.opened_model import OpenedModel
from studio.session.planner import Planner


def test_it_is_in_the_scheme_that_the_plan_has_for_it(tiny_model: Callable[[str], Path]) -> None:
    planner = Planner()
    assert levels_of(planner, "*") is None
    planner.take(OpenedModel.of(of_folder(tiny_model("llama"))))
    pinned = Scheme(Mode.NF4, 32)
    planner.choose(Choice(Mode.INT4_ASYM, 32, 1.0, pins=(Pin("*1.mlp.down_proj*", pinned),)))
    found = levels_of(planner, "*.1.mlp.down_proj*")
    assert found is not None
    assert found.assignment.scheme == pinned
    assert found.levels.sampled == found.assignment.layer.numel
    assert levels_of(planner, "x" * 10_000) is None
