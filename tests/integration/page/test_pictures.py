"""Which of two pictures of the page is the newer, and in which language it is drawn."""

import pytest

from studio.base.text import LANGUAGES, text
from studio.checkpoint.checkpoint import Checkpoint
from studio.planning.choice import Choice
from studio.ui.scripts import NEWEST
from tests.page_visitor import LAYERS, Picked, Visitor, choose, turn

pytestmark = pytest.mark.usefixtures("own_cache", "_few")


def test_a_picture_begun_later_is_the_newer_one_whichever_comes_first(visitor: Visitor) -> None:
    """The browser keeps the newest: a measurement's answer may come after that to the colour picked meanwhile."""
    page = visitor.page
    steps = visitor.steps("measure")
    next(steps)
    late = visitor.says(page.map.grid), visitor.says(page.map.legend)
    visitor.do("paint", "bits")
    choose(visitor, Choice(group_size=32))
    newest = visitor.says(page.map.grid), visitor.says(page.map.legend)
    assert all(turn(before) < turn(now) for before, now in zip(late, newest, strict=True))
    for _ in steps:
        pass
    assert text("figure.bits.legend") in visitor.says(page.map.legend)
    watching = (page.sizes.strip, page.map.grid, page.map.legend, page.map.table, page.map.pins, page.map.card)
    for picture in (*watching, page.sizes.chart, page.sizes.distribution):
        assert NEWEST in (picture.js_on_load or "")
        assert turn(visitor.says(picture)) > 0


def test_a_measurement_that_ends_shows_the_layer_that_is_looked_at_by_then(visitor: Visitor) -> None:
    visitor.do("pick", Picked(LAYERS[0]))
    steps = visitor.steps("measure")
    next(steps)
    visitor.do("describe", LAYERS[1])
    for _ in steps:
        pass
    assert "128 × 64" in visitor.says(visitor.page.map.card)


def test_a_measurement_switches_no_button(visitor: Visitor) -> None:
    choose(visitor, Choice(group_size=32))
    for button in (visitor.page.plan.undo, visitor.page.map.unpin):
        visitor.shown[button] = {"interactive": "untouched"}
    visitor.do("measure")
    for button in (visitor.page.plan.undo, visitor.page.map.unpin):
        assert visitor.shown[button] == {"interactive": "untouched"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_that_depends_on_state_is_said_in_the_language_chosen(visitor: Visitor, language: str) -> None:
    visitor.do("measure")
    visitor.compress()
    visitor.do("pick", Picked(LAYERS[0]))
    visitor.do("pin", "", "int8_asym")
    choose(visitor, Choice(group_size=32))
    visitor.do("speak")
    before = {component: visitor.says(component) for component in visitor.shown}
    visitor.language = language
    visitor.do("speak")
    page = visitor.page
    assert text("plan.stale", language) in visitor.says(page.plan.progress)
    assert visitor.says(page.map.notice) == ""
    for component in (page.map.card, page.map.legend, page.sizes.strip, page.drift.headline, page.export.summary):
        assert language == "en" or visitor.says(component) != before[component]
    assert isinstance(visitor.session.checkpoint, Checkpoint)
