"""The figure of a layer's weights: a line for each level, a way for each weight of one group."""

from collections.abc import Callable
from pathlib import Path

import pytest

from studio.base.text import LANGUAGES
from studio.checkpoint.checkpoint import of_folder
from studio.planning.choice import Choice
from studio.session.looked_at import levels_of
from studio.session.opened_model import OpenedModel
from studio.session.planner import Planner
from studio.ui.weight_chart import levels_hint, weight_chart


@pytest.fixture
def planner(tiny_model: Callable[[str], Path]) -> Planner:
    planner = Planner()
    planner.take(OpenedModel.of(of_folder(tiny_model("llama"))))
    planner.choose(Choice.of("int4_sym", 32, 1.0))
    return planner


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_figure_has_a_line_for_each_level(planner: Planner, language: str) -> None:
    found = levels_of(planner, "*0.mlp.down_proj*")
    assert found is not None
    chart = weight_chart(found, language)
    assert len(chart.layout.shapes) == 2 * len(found.levels.levels)  # of one group, and of the whole
    assert "int4_sym" in chart.layout.annotations[1].text
    assert sum(chart.data[3].y) == found.levels.sampled
    assert "16" in levels_hint(found, language)


def test_a_pattern_of_nothing_has_no_figure(planner: Planner) -> None:
    assert levels_of(planner, "nothing") is None
    assert levels_of(planner, "") is None
    assert levels_hint(None, "en") == ""
