"""An estimate is the plan of a name and a choice; what a ratio goes by is found out once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from studio.base.errors import ModelError, SchemeError
from studio.checkpoint.checkpoint import Checkpoint
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.planning.survey import sensitivities
from studio.quantization.scheme import Mode
from studio.session.estimate import estimate, taken
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
WHOLE = Choice(Mode.INT4_ASYM, 32)
MIXED = replace(WHOLE, ratio=0.6)


@pytest.fixture
def folder(tiny_model: Callable[[str], Path]) -> str:
    return str(tiny_model("llama"))


def test_without_a_ratio_it_follows_from_headers(folder: str) -> None:
    checkpoint, plan = finish(estimate(folder, WHOLE))
    assert checkpoint.name == folder
    assert plan.is_exact
    assert plan == make_plan(checkpoint.layers, WHOLE)


def test_a_ratio_goes_by_sensitivities_that_are_found_out_once(folder: str) -> None:
    steps = list(estimate(folder, MIXED))
    assert any(step.stage == "rank" for step in steps)
    assert not any(step.stage == "rank" for step in estimate(folder, MIXED)), "kept from the visit before"
    checkpoint, plan = finish(estimate(folder, MIXED))
    assert plan.is_exact
    assert plan == make_plan(checkpoint.layers, MIXED, finish(sensitivities(checkpoint)))


def test_a_group_size_that_was_named_has_to_fit_and_another_gives_way(folder: str) -> None:
    wide = replace(WHOLE, group_size=256)
    with pytest.raises(SchemeError):
        finish(estimate(folder, wide))
    checkpoint, plan = finish(estimate(folder, wide, keep_group_size=False))
    assert plan.choice == replace(WHOLE, group_size=64)
    assert taken(wide, checkpoint, keep_group_size=True) == wide


def test_a_choice_loses_nothing_but_its_group_size(llama: Checkpoint) -> None:
    choice = Choice.of("nf4", 256, 0.5, "int8_sym", pins=["*.q_proj=none"], sensitivity="damage")
    assert taken(choice, llama, keep_group_size=False) == replace(choice, group_size=64)


def test_a_path_is_a_name_where_paths_are(folder: str) -> None:
    with pytest.raises(ModelError):
        finish(estimate(folder, WHOLE, paths=False))
