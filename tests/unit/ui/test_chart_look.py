"""The look of the figures: colours that can be told from both grounds, and a frame that a finger scrolls past."""

import plotly.graph_objects as go
import pytest

from studio.ui.chart_look import ACCENT, INK, WARM, framed
from studio.ui.palette import luminance


def rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


GROUNDS = {"light": "#ffffff", "dark": "#161d2a"}
"""``--card`` in the style sheet."""


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
@pytest.mark.parametrize("colour", [INK, ACCENT, WARM])
def test_marks_and_lines_have_the_contrast_that_wcag_asks_of_pictures(colour: str, ground: str) -> None:
    bright, dark = sorted((luminance(rgb(each)) + 0.05 for each in (colour, ground)), reverse=True)
    assert bright / dark >= 3


def test_a_figure_neither_zooms_nor_drags() -> None:
    chart = framed(go.Figure(), 200, {"l": 1, "r": 1, "t": 1, "b": 1})
    assert (chart.layout.height, chart.layout.dragmode) == (200, False)
    assert chart.layout.xaxis.fixedrange is chart.layout.yaxis.fixedrange is True
