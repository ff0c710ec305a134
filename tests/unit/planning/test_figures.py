"""Each figure of the map is whole: its words in every catalogue, its numbers from what is known, its colours."""

import math
import re

import pytest

from studio.base.text import LANGUAGES, catalogue, text
from studio.checkpoint.layers import Kind
from studio.planning.choice import Choice
from studio.planning.figures import DEFAULT, FIGURES, MEASURED
from studio.planning.layer_figure import Known, LayerFigure
from studio.planning.plan import make_plan
from studio.planning.survey_file import LayerSurvey, Survey
from studio.quantization.scheme import Mode
from studio.ui.choices import colour_choices
from studio.ui.heatmap import heatmap
from tests.unit.planning.test_plan import a_model

PLAN = make_plan(a_model(), Choice(Mode.INT4_ASYM, 64))
LINEAR = [a.layer.name for a in PLAN.assignments if a.layer.kind is Kind.LINEAR]
LINES = {name: {"int4_asym-g64": 0.01 * (i + 1), "int8_asym": 0.001} for i, name in enumerate(LINEAR)}
EMPTY = Known(PLAN)
FULL = Known(
    PLAN,
    Survey({name: LayerSurvey(line, 1.0) for name, line in LINES.items()}),
    measured=dict.fromkeys(MEASURED, LINES),
    weight_errors={name: line["int4_asym-g64"] for name, line in LINES.items()},
)
figures = pytest.mark.parametrize("figure", FIGURES.values(), ids=list(FIGURES))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_catalogues_hold_what_the_figures_need_and_no_other_figure(language: str) -> None:
    there = {key for key in catalogue(language) if key.startswith("figure.")}
    needed = {key for figure in FIGURES.values() for key in figure.keys}
    assert {key for key in needed if key.startswith("figure.")} == there
    assert needed <= catalogue(language).keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_menu_has_every_figure_in_their_order(language: str) -> None:
    assert [name for _, name in colour_choices(language)] == list(FIGURES)
    assert len({words for words, _ in colour_choices(language)}) == len(FIGURES)
    assert DEFAULT in FIGURES


@figures
def test_a_figure_of_nothing_known_shows_nothing(figure: LayerFigure) -> None:
    assert figure.on_map(EMPTY) is None
    assert figure.total(EMPTY) is None
    assert figure.costs(EMPTY, LINEAR[:1]) == {}


@figures
def test_the_map_shows_the_number_of_the_plan(figure: LayerFigure) -> None:
    shown = figure.on_map(FULL)
    if shown is None:
        assert heatmap(PLAN, shown, "en", figure=figure) == heatmap(PLAN, None, "en"), "by bits"
        return
    total = figure.total(FULL)
    assert (total is not None) == figure.adds_up
    numbers = {name: LINES[name]["int4_asym-g64"] for name in LINEAR}
    assert {name: shown[name] for name in LINEAR} == pytest.approx(numbers)
    hover = text(f"figure.{figure.name}.hover", value=f"{numbers[LINEAR[0]]:{figure.map_format}}")
    assert hover in re.findall(r'aria-label="([^"]*)"', heatmap(PLAN, shown, "en", figure=figure))[0]


@figures
def test_what_adds_up_costs_the_sum_and_other_figures_that_of_the_first(figure: LayerFigure) -> None:
    if figure.on_map(FULL) is None:
        return
    cost = figure.costs(FULL, LINEAR[:2])["int4_asym-g64"]
    assert cost == pytest.approx(0.03 if figure.adds_up else 0.01)


@pytest.mark.parametrize("name", MEASURED)
def test_a_layer_that_no_token_reached_has_no_number(name: str) -> None:
    figure = FIGURES[name]
    shown = figure.on_map(Known(PLAN, measured={name: {**LINES, LINEAR[0]: {}}}))
    assert shown is not None
    assert math.isnan(shown[LINEAR[0]])
