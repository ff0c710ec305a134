"""What 4 bits are: three sentences, sixteen steps, every weight at the nearest, and the sizes of the model on show."""

import re

import pytest

from studio.base.text import LANGUAGES, text
from studio.session.session import Session
from studio.ui.understand import EXAMPLE, STEPS, int4, snapping


def test_every_weight_moves_to_the_nearest_of_sixteen_steps() -> None:
    picture = snapping("en")
    steps = [float(x) for x in re.findall(r'class="step" x1="([\d.]+)"', picture)]
    moves = [(float(a), float(b)) for a, b in re.findall(r'class="move" x1="([\d.]+)" y1="\d+" x2="([\d.]+)"', picture)]
    assert len(steps) == STEPS
    assert len(moves) == len(EXAMPLE)
    for weight, taken in moves:
        assert abs(weight - taken) <= min(abs(weight - step) for step in steps) + 0.11  # places are told to 0.1


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_is_three_sentences_and_closed_until_somebody_asks(language: str) -> None:
    said = text("understand.int4", language)
    assert len(re.findall(r"\.(?= |$)|。", said)) == 3
    html = int4(Session(), language)
    assert said in html
    assert "<details" in html
    assert "open" not in html.partition("<summary>")[0]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("panel", ["preset", "samples", "front", "map", "size", "export", "chat", "runs", "plan"])
def test_each_panel_is_explained_by_one_sentence_and_more_behind_a_mark(panel: str, language: str) -> None:
    first, more = text(f"understand.{panel}", language), text(f"understand.{panel}_more", language)
    assert len(re.findall(r"\.(?= |$)|。", first)) == 1
    assert 3 <= len(re.findall(r"\.(?= |$)|。", more)) <= 4
