"""What the page keeps, handler by handler: figures that still hold, and what was typed."""

from pathlib import Path

import pytest

from studio.base.text import text
from studio.planning.choice import Choice
from tests.conftest import SENTENCES
from tests.page_visitor import LAYERS, SAMPLING, Picked, Visitor, choose

pytestmark = pytest.mark.usefixtures("own_cache", "_few")


def test_drift_that_still_holds_is_kept(visitor: Visitor, models: dict[str, str], tmp_path: Path) -> None:
    headline = visitor.page.drift.headline
    (tmp_path / "mine.txt").write_text(" ".join(SENTENCES * 60))
    visitor.do("take_text", str(tmp_path / "mine.txt"))
    visitor.compress()
    visitor.do("measure_drift")
    measured, said = visitor.session.copy.drift, visitor.says(headline)
    assert measured is not None
    assert measured.is_whole
    visitor.talk("Hello")

    visitor.compress()  # the plan that it is of
    assert text("plan.unchanged") in visitor.says(visitor.page.plan.progress)
    visitor.do("open_model", models["first"])
    choose(visitor, Choice(group_size=32))
    choose(visitor, Choice())
    assert visitor.says(visitor.page.plan.progress) == ""
    assert (visitor.session.copy.drift, visitor.says(headline)) == (measured, said)
    assert len(visitor.session.conversation.turns) == 1

    choose(visitor, Choice(group_size=32))
    visitor.compress()
    assert not visitor.session.copy.drift
    assert "KLD 0" not in visitor.says(headline)
    choose(visitor, Choice())
    visitor.compress()
    assert (visitor.session.copy.drift, visitor.says(headline)) == (measured, said)


def test_a_model_that_is_merely_left_changes_nothing(visitor: Visitor, models: dict[str, str]) -> None:
    """Gradio says that a name was put in when the box is only left."""
    visitor.compress()
    visitor.do("pick", Picked(LAYERS[0]))
    before = {component: dict(shown) for component, shown in visitor.shown.items()}
    visitor.do("open_model", models["first"])
    changed = {component for component, shown in visitor.shown.items() if shown != before[component]}
    assert changed <= {visitor.page.model.notice, visitor.page.model.measuring, visitor.page.missing}


@pytest.mark.parametrize("is_compressed", [False, True], ids=["alone", "both"])
def test_a_message_that_is_refused_stays_in_the_box(visitor: Visitor, is_compressed: bool) -> None:
    if is_compressed:
        visitor.compress()
    prompt, columns = visitor.page.chat.prompt, (visitor.page.chat.original, visitor.page.chat.compressed)
    visitor.talk("Hello")
    assert visitor.shown[prompt]["value"] == ""
    before = [visitor.shown[column]["value"] for column in columns]
    for refused, said in (("Paris " * 300, "256"), ("x" * 100_001, "100,001"), (" \n", text("error.empty_prompt"))):
        visitor.talk(refused)
        assert visitor.shown[prompt]["value"] == refused
        assert [visitor.shown[column]["value"] for column in columns] == before
        assert said in visitor.says(visitor.page.chat.notice) + visitor.says(visitor.page.chat.original_stats)
        assert visitor.shown[visitor.page.chat.send]["interactive"]
    assert len(visitor.session.conversation.turns) == 1
    visitor.talk("Hello")
    assert visitor.shown[prompt]["value"] == ""


def test_what_is_typed_while_both_answer_stays(visitor: Visitor) -> None:
    visitor.do("talk", "Hello", *SAMPLING)
    visitor.shown[visitor.page.chat.prompt] = {"value": "And then"}
    visitor.do("empty", "And then")
    assert visitor.shown[visitor.page.chat.prompt]["value"] == "And then"


def test_a_last_message_that_cannot_be_replaced_is_still_to_be(visitor: Visitor) -> None:
    visitor.talk("Hello")
    visitor.do("edit")
    visitor.talk("Paris " * 300)
    assert visitor.session.conversation.is_editing
    assert text("chat.editing") in visitor.says(visitor.page.chat.notice)
    visitor.talk("Hello again")
    assert [turn.prompt for turn in visitor.session.conversation.turns] == ["Hello again"]
    assert visitor.says(visitor.page.chat.notice) == ""


def test_what_is_typed_wrongly_can_be_corrected(visitor: Visitor) -> None:
    named = visitor.page.model.name, visitor.page.map.layer, visitor.page.plan.dataset, visitor.page.drift.dataset
    for component in named:
        visitor.shown[component] = {"value": "no/such"}
    visitor.do("open_model", "no/such")
    visitor.do("pin", "no/such", "int8_asym")
    visitor.do("fetch_calibration", "no/such")
    visitor.do("fetch_text", "no/such")
    places = visitor.page.model.notice, visitor.page.map.notice, visitor.page.plan.progress, visitor.page.drift.progress
    assert all("alert" in visitor.says(place) for place in places)
    assert all(visitor.shown[component]["value"] == "no/such" for component in named)


def test_half_a_character_is_shown_as_none(visitor: Visitor) -> None:
    """It has no UTF-8, in which Gradio sends everything: the page would hear nothing any more."""
    half = "\ud800/x*"
    visitor.talk(half)
    visitor.do("pick", Picked(half))
    for name, inputs in (("open_model", ()), ("describe", ()), ("pin", ("none",)), ("fetch_text", ())):
        visitor.do(name, half, *inputs)
    visitor.do("edit")
    repr(visitor.session.conversation.turns).encode()
    shown = [*map(str, visitor.shown.values())]
    assert any("\ufffd" in each for each in shown)
    assert not any("\\ud800" in each or "\ud800" in each for each in shown)


def test_a_pin_that_was_refused_says_so_whichever_answer_comes_first(visitor: Visitor) -> None:
    """The layer's box tells the server what was typed as it is left for the button."""
    visitor.do("pin", "no/such", "int8_asym")
    refused = visitor.says(visitor.page.map.notice)
    assert refused
    visitor.do("describe", "no/such")
    assert visitor.says(visitor.page.map.notice) == refused
    visitor.do("pin", LAYERS[0], "int8_asym")
    assert visitor.says(visitor.page.map.notice) == ""
