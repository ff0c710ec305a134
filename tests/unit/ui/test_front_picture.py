"""The picture of a front: hollow is predicted, solid is measured with its errors, in every language."""

from dataclasses import replace

import pytest

from studio.base.text import LANGUAGES, text
from studio.ui.front_picture import front_picture
from tests.unit.session.test_front import a_front, evaluation, point


@pytest.mark.parametrize("language", LANGUAGES)
def test_points_say_what_they_are(language: str) -> None:
    other = replace(point("<b>theirs", 12, 0.2, 0.4), kind="other")
    front = replace(a_front(), points=(*a_front().points, other), floor=evaluation(0.001, 0.002))
    chart = front_picture(front, language)
    by_name = {trace.name: trace for trace in chart.data}
    predicted = by_name[f"{text('front.kind_plan', language)}, {text('front.predicted', language)}"]
    measured = by_name[f"{text('front.kind_plan', language)}, {text('front.measured', language)}"]
    theirs = by_name[f"{text('front.kind_other', language)}, {text('front.measured', language)}"]
    assert predicted.marker.symbol.endswith("-open")
    assert not measured.marker.symbol.endswith("-open")
    assert list(measured.x) == [10 / 1e6, 20 / 1e6]
    assert list(measured.error_y.array) == [0.02, 0.02]
    assert list(theirs.text) == ["&lt;b&gt;theirs"]
    assert "python -m studio export" in predicted.hovertext[0]
    assert any(text("front.floor", language) in each.text for each in chart.layout.annotations)
    assert chart.layout.xaxis.title.text == text("front.size", language)


def test_a_front_of_one_point_is_drawn() -> None:
    chart = front_picture(replace(a_front(), points=a_front().points[:1]), "en")
    assert len(chart.data) == 2
