"""The controls of the plan: read by name wherever they stand, and set back."""

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from studio.planning.choice import Choice
from studio.quantization.methods import Method
from studio.quantization.scheme import Mode
from studio.session.session import Session
from studio.ui import updates
from studio.ui.events import wire
from studio.ui.page import build
from tests.page_visitor import LAYERS, Visitor, choose
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache", "_few")
UNUSUAL = Choice(Mode.NF4, 32, 0.8, None, "adjust", all_layers=True, sensitivity="damage", method=Method.GPTQ)
"""No field as it is by default."""


@pytest.mark.parametrize("turned", [False, True], ids=["as built", "turned round"])
def test_a_control_is_read_by_its_name_wherever_it_stands(turned: bool, models: dict[str, str], tmp_path: Path) -> None:
    """What the browser sends has an order, and nobody but Gradio knows it."""

    async def moved(session: Session) -> None:
        blocks, page = build()
        order = list(page.plan.controls.items())
        page = replace(page, plan=replace(page.plan, controls=dict(reversed(order) if turned else order)))
        with blocks:
            wire(page, blocks)
        [function] = [each for each in blocks.fns.values() if each.name == "choose"]
        names = {component: name for name, component in page.plan.controls.items()}
        sent = [UNUSUAL.words()[names[component]] for component in function.inputs[2:]]
        assert [names[component] for component in function.inputs[2:]] == list(page.plan.controls)
        await blocks.call_function(function, [session, "en", *sent])

    with closing(Session(paths=True, workspace=tmp_path / "workspace")) as session:
        finish(session.open(models["first"]))
        asyncio.run(moved(session))
        assert session.choice == UNUSUAL


def test_pins_and_what_is_not_picked_stay_as_they_are(visitor: Visitor) -> None:
    visitor.do("pin", LAYERS[0], "none")
    before = visitor.session.choice
    words = {name: before.words()[name] for name in visitor.page.plan.controls} | {
        "group_size": None,
        "ratio": 0.1 + 0.2,
    }
    visitor.do("choose", **words)
    assert visitor.session.choice == replace(before, ratio=0.3)


def test_undo_sets_every_control_back(visitor: Visitor) -> None:
    before = visitor.session.choice
    choose(
        visitor, Choice(Mode.NF4, 32, 0.8, None, "adjust", all_layers=True, sensitivity="damage", method=Method.GPTQ)
    )
    visitor.do("undo")
    controls = visitor.page.plan.controls
    assert {name: visitor.shown[each]["value"] for name, each in controls.items()} == {
        name: before.words()[name] for name in controls
    }


def test_a_moved_control_is_answered_by_what_it_may_change_and_nothing_else(visitor: Visitor) -> None:
    """Gradio answers with an error for any other component."""
    changed = updates.planned(visitor.page, visitor.session, "en")
    assert changed.keys() <= set(updates.moving(visitor.page))
