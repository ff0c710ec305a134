"""What the page says of a job and of the map, in words."""

import math
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from studio.base.progress import Progress
from studio.base.text import LANGUAGES, text
from studio.checkpoint.layers import Kind
from studio.planning.choice import Choice
from studio.planning.figures import FIGURES
from studio.planning.plan import make_plan
from studio.quantization.methods import Method
from studio.quantization.scheme import Mode
from studio.session.session import Session
from studio.ui.html import progress
from studio.ui.map_text import is_as_nearest, known_of, layer_card, map_legend
from studio.ui.present import strip
from tests.unit.planning.test_plan import a_model

PLAN = make_plan(a_model(), Choice(Mode.INT4_ASYM, 64))


def on_map(session: Session, figure: str) -> Mapping[str, float] | None:
    """Return what colours the map."""
    known = known_of(session)
    assert known is not None
    return FIGURES[figure].on_map(known)


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_is_measured_in_turns_is_told(language: str) -> None:
    said = escape(text("stage.turns", language))
    assert said in progress(Progress("survey", 1, 2, "x", is_shared=True), language)
    assert said not in progress(Progress("survey", 1, 2, "x"), language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_legend_says_what_grey_is_where_there_is_grey(language: str) -> None:
    errors = {a.layer.name: 0.1 for a in PLAN.assignments}
    grey = text("map.grey", language)
    assert grey not in map_legend(PLAN, FIGURES["output"], errors, language)
    assert grey in map_legend(PLAN, FIGURES["output"], errors | {"b.0.q_proj.weight": math.nan}, language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_errors_of_another_method_are_drawn_as_estimates(language: str, tmp_path: Path) -> None:
    found = {a.layer.name: 0.1 for a in PLAN.assignments if a.scheme is not None}
    session = Session(choice=PLAN.choice, workspace=tmp_path)
    session.planner.plan = PLAN
    hint = escape(text("strip.error_method_hint", language))
    assert not is_as_nearest(session)
    assert hint not in strip(session, found, language)
    session.planner.choice = replace(PLAN.choice, method=Method.GPTQ)
    assert is_as_nearest(session)
    assert hint in strip(session, found, language)
    assert "~\u200910.00%" in strip(session, found, language)


def test_damage_is_shown_in_nats_as_far_as_it_is_known(tmp_path: Path) -> None:
    linear = [a for a in PLAN.assignments if a.layer.kind is Kind.LINEAR]
    damages = {a.layer.name: {str(a.scheme): 0.01, "int8_asym": 0.001} for a in linear}
    damages[linear[0].layer.name] = {}
    session = Session(choice=PLAN.choice, workspace=tmp_path)
    session.planner.plan = PLAN
    session.model.figures = {"damage": damages}
    shown = on_map(session, "damage")
    assert shown is not None
    assert math.isnan(shown[linear[0].layer.name])
    assert shown[linear[1].layer.name] == pytest.approx(0.01)
    assert on_map(session, "output") is None
    session.model.figures = {"damage": dict(list(damages.items())[:-1])}  # while it is measured
    shown = on_map(session, "damage")
    assert shown is not None
    assert linear[-1].layer.name not in shown
    session.model.figures = {"damage": damages}
    session.planner.choice = replace(PLAN.choice, method=Method.GPTQ)
    assert is_as_nearest(session, FIGURES["damage"])
    assert text("figure.damage.total", total="0.34") in map_legend(PLAN, FIGURES["damage"], shown, "en", total=0.339)
    assert layer_card(session, linear[1].layer.name, "en").count("<th") == 0  # nothing is surveyed yet
