"""What the page says of a job and of the map, in words."""

import math
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from studio.jobs import Event
from studio.plan import Choice, make_plan
from studio.scheme import Method, Mode
from studio.session import Session
from studio.text import LANGUAGES, text
from studio.ui.present import is_as_nearest, map_legend, progress, strip
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


@pytest.mark.parametrize("language", LANGUAGES)
def test_errors_of_another_method_are_drawn_as_estimates(language: str, tmp_path: Path) -> None:
    found = {a.layer.name: 0.1 for a in PLAN.assignments if a.scheme is not None}
    session = Session(plan=PLAN, choice=PLAN.choice, workspace=tmp_path)
    hint = escape(text("strip.error_method_hint", language))
    assert not is_as_nearest(session)
    assert hint not in strip(session, found, language)
    session.choice = replace(PLAN.choice, method=Method.GPTQ)
    assert is_as_nearest(session)
    assert hint in strip(session, found, language)
    assert "~\u200910.00%" in strip(session, found, language)
