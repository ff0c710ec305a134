"""What the page says of a job and of the map, in words."""

import math
from html import escape

import pytest

from studio.jobs import Event
from studio.plan import Choice, make_plan
from studio.scheme import Mode
from studio.text import LANGUAGES, text
from studio.ui.present import map_legend, progress
from tests.unit.test_plan import a_model

PLAN = make_plan(a_model(), Choice(Mode.INT4_ASYM, 64))


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_is_measured_in_turns_is_told(language: str) -> None:
    said = escape(text("stage.turns", language))
    assert said in progress(Event("survey", 0.5, "x", is_shared=True), language)
    assert said not in progress(Event("survey", 0.5, "x"), language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_legend_says_what_grey_is_where_there_is_grey(language: str) -> None:
    errors = {a.layer.name: 0.1 for a in PLAN.assignments}
    grey = text("map.grey", language)
    assert grey not in map_legend(PLAN, "output", errors, language)
    assert grey in map_legend(PLAN, "output", errors | {"b.0.q_proj.weight": math.nan}, language)
