"""The chart of sizes: its parts are the plan's bytes, to the last one, for those who see it and those who hear it."""

import re

import pytest

from studio.base.text import LANGUAGES, text
from studio.base.units import format_bytes
from studio.checkpoint.stored_as import OfType
from studio.planning.choice import Choice
from studio.planning.plan import Plan, make_plan
from studio.quantization.scheme import Mode
from studio.ui.size_chart import size_chart
from tests.unit.planning.test_plan import a_model

EXACT = make_plan(a_model(), Choice(Mode.INT4_ASYM, 64))
ESTIMATE = make_plan(a_model(), Choice(Mode.INT4_ASYM, 64, 0.5))
LARGER = make_plan(a_model(), Choice(Mode.INT8_ASYM))


def bar(plan: Plan, model: str, language: str = "en") -> str:
    """Return one bar's HTML."""
    found = re.search(rf'<div class="bar[^>]* data-model="{model}".*?</b></div>', size_chart(plan, language))
    assert found
    return found[0]


def numbers(words: list[str]) -> list[int]:
    return [int(word.replace(",", "")) for word in words]


@pytest.mark.parametrize("plan", [EXACT, ESTIMATE, LARGER], ids=["exact", "estimate", "int8"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_parts_of_a_bar_are_all_of_the_bytes(plan: Plan, language: str) -> None:
    for model, sizes in (("original", plan.original_breakdown), ("compressed", plan.breakdown)):
        html = bar(plan, model, language)
        seen = numbers(re.findall(r'title="[^"]*?([\d,]+) B"', html))
        [label] = re.findall(r'aria-label="([^"]*)"', html)
        assert seen == [nbytes for nbytes in sizes.values() if nbytes]
        assert numbers(re.findall(r"([\d,]+) B", label)) == seen
        assert text(f"size.{model}", language) in label
        assert format_bytes(sum(sizes.values())) in label


def test_both_bars_have_one_scale() -> None:
    widths = [
        sum(map(float, re.findall(r"width:([\d.]+)%", bar(EXACT, model)))) for model in ("original", "compressed")
    ]
    assert widths[0] == pytest.approx(100, abs=0.01)
    assert widths[1] == pytest.approx(100 * EXACT.compressed_bytes / EXACT.original_bytes, abs=0.01)


def test_an_estimate_looks_like_one_and_the_original_never_does() -> None:
    assert 'class="bar estimate"' in bar(ESTIMATE, "compressed")
    assert "<b>~" in bar(ESTIMATE, "compressed")
    for html in (bar(ESTIMATE, "original"), bar(EXACT, "compressed")):
        assert "estimate" not in html
        assert "~" not in html


def test_the_legend_names_what_is_there_alone() -> None:
    legend = size_chart(EXACT, "en").partition('<ul class="swatches">')[2]
    assert [text(f"size.{part}") in legend for part in ("blocks", "zero_points")] == [True, True]
    symmetric = size_chart(make_plan(a_model(), Choice(Mode.INT4_SYM, 64, 1, None)), "en")
    assert text("size.zero_points") not in symmetric


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_source_that_came_quantized_has_a_bar_of_its_own(language: str) -> None:
    assert 'data-model="came"' not in size_chart(EXACT, language)
    types = [OfType(f"Q{i}<", 1, 100, 1000 - i) for i in range(8)]
    html = size_chart(EXACT, language, types)
    came = html.partition('data-model="came"')[2].partition("</b></div>")[0]
    assert numbers(re.findall(r'title="[^"]*?([\d,]+) B', came)) == [each.nbytes for each in types]
    assert text("size.came", language) in came
    assert "Q1<" not in came
