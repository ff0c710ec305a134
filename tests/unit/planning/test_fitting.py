"""A choice is taken over to another model as far as that can carry it out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest

from studio.checkpoint.layers import Kind, Layer
from studio.planning.choice import Choice, Pin
from studio.planning.fitting import fitting
from studio.planning.plan import make_plan
from studio.quantization.scheme import Mode
from tests.unit.planning.test_plan import a_layer


def model_of(*widths: int) -> list[Layer]:
    """Return a model with one linear weight of each width."""
    return [a_layer(f"b.{i}.weight", Kind.LINEAR, (96, width)) for i, width in enumerate(widths)]


def test_what_can_be_carried_out_stays_as_it_is() -> None:
    choice = Choice(Mode.NF4, 128, 0.7, Mode.INT8_SYM, all_layers=True, sensitivity="damage")
    assert fitting(choice, model_of(256)) == choice


def test_pins_were_for_the_layers_of_the_model_before() -> None:
    choice = Choice(pins=(Pin("b.0.*", None),))
    assert fitting(choice, model_of(128)) == replace(choice, pins=())


@pytest.mark.parametrize(
    ("widths", "size"),
    [([192], 64), ([96], 32), ([128, 96], 32), ([256], 64), ([100], -1), ([64, 100], -1)],
    ids=str,
)
def test_a_group_size_that_does_not_fit_gives_way_to_one_that_does(widths: list[int], size: int) -> None:
    layers = model_of(*widths)
    wide = Choice(group_size=256 if widths != [256] else 32)
    found = fitting(wide, layers)
    assert found.group_size == (32 if widths == [256] else size), "one that fits is kept"
    assert make_plan(layers, found).compressed_layers == len(widths)


@pytest.mark.parametrize("fallback", ["ignore", "adjust"])
def test_a_group_size_with_a_fallback_stays(fallback: Literal["ignore", "adjust"]) -> None:
    choice = Choice(group_size=128, group_size_fallback=fallback)
    assert fitting(choice, model_of(96)) == choice


def test_a_mode_whose_only_group_does_not_divide_the_model_gives_way_to_the_default() -> None:
    assert fitting(Choice(Mode.MXFP4), model_of(100)) == Choice(group_size=-1)
    assert fitting(Choice(Mode.MXFP4), model_of(96)).mode == Mode.MXFP4


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_what_writes_no_text_has_no_damage_to_go_by(ratio: float) -> None:
    choice = Choice(ratio=ratio, sensitivity="damage")
    assert fitting(choice, model_of(128), can_chat=False) == replace(choice, sensitivity="nncf")
    assert fitting(choice, model_of(128), can_chat=True) == choice


@pytest.mark.parametrize(("budget", "can_chat"), [("1bpw", True), ("5GB", True), ("8bpw", False)])
def test_a_budget_that_the_model_cannot_have_is_dropped(budget: str, can_chat: bool) -> None:
    found = fitting(Choice.of(budget=budget), model_of(128), can_chat)
    assert found.budget is None
    assert fitting(Choice.of(budget="8bpw"), model_of(128)).budget is not None


@pytest.mark.parametrize("layers", [[], [a_layer("norm", Kind.OTHER, (7,))]], ids=["none", "a norm"])
def test_a_model_without_weights_has_a_choice_too(layers: Sequence[Layer]) -> None:
    make_plan(layers, fitting(Choice(), layers))
