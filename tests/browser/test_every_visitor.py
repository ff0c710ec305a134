"""Every visitor: by keyboard, on a phone, two at once, and one who waits for another."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.walking import (
    QUESTION,
    Visit,
    answer,
    check_language,
    choose_mode,
    compress,
    endless,
    figure,
    overflow,
    plain,
    ready,
    send,
)

pytestmark = pytest.mark.real


def test_the_keyboard_alone_reaches_compress_and_runs_it(page: Page) -> None:
    page.locator("body").press("Tab")
    for _ in range(60):
        if page.evaluate("document.activeElement.id") == "compress":
            break
        page.keyboard.press("Tab")
    expect(page.locator("#compress")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    expect(page.locator("#progress .good")).to_be_visible()


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en-US"), ("dark", "zh-CN")])
def test_on_a_phone_nothing_sticks_out_and_the_answers_come_first(
    visit: Visit, address: str, scheme: str, locale: str
) -> None:
    phone = {"width": 375, "height": 812}
    page = ready(visit(plain(address), viewport=phone, color_scheme=scheme, locale=locale))
    assert page.locator("body.dark").count() == (scheme == "dark")
    expect(page.locator("#map-grid .cell")).not_to_have_count(0)
    assert overflow(page) <= 0
    compress(page)
    expect(page.locator("#export-summary code")).to_be_visible()
    assert overflow(page) <= 0
    panels = ("presets", "plan", "answers", "chat", "map", "export", "front", "size", "runs")
    tops = [box(page, panel)["y"] for panel in panels]
    assert tops == sorted(tops)
    for panel in ("verdict", *panels):
        found = box(page, panel)
        assert found["x"] >= 0
        assert found["x"] + found["width"] <= phone["width"]


def box(page: Page, panel: str) -> Any:
    """Return where a panel stands, in pixels from the page's beginning."""
    return page.locator(f"#{panel}").evaluate(
        "(panel) => { const {x, y, width} = panel.getBoundingClientRect(); return {x, y: y + scrollY, width} }"
    )


def test_two_visitors_at_once_do_not_see_each_other(visit: Visit, address: str) -> None:
    ours, theirs = ready(visit(plain(address))), ready(visit(plain(address), locale="zh-CN"))
    choose_mode(ours, "int8_asym")
    ours.locator("#compress").click()
    theirs.locator("#prompt textarea").fill("Say hello.")
    theirs.locator("#send").click()
    expect(ours.locator("#progress .good")).to_be_visible()
    send(ours)
    expect(theirs.locator("#prompt textarea")).to_have_value("")
    expect(answer(ours, "compressed")).to_contain_text("Paris")
    expect(answer(theirs, "original")).not_to_be_empty()
    assert "hello" not in ours.locator("#chat").inner_text().lower()
    assert "France" not in theirs.locator("#chat").inner_text()
    assert "Paris" not in theirs.locator("#chat").inner_text()
    expect(theirs.locator('#compressed [data-testid="bot"]')).to_have_count(0)
    expect(theirs.locator("#export-button")).to_be_disabled()
    expect(figure(theirs, "compressed")).to_have_text("85.8 MB")
    check_language(theirs, "zh-Hans")
    check_language(ours, "en")


def test_a_visitor_does_not_wait_for_another_who_talks_without_end(visit: Visit, address: str) -> None:
    """Answers have a lane of their own; what is long goes on beside them, and can be cancelled."""
    first, second = ready(visit(plain(address))), ready(visit(plain(address)))
    endless(first)
    first.locator("#prompt textarea").fill("Tell me a long story.")
    first.locator("#send").click()
    expect(first.locator("#original-stats")).to_contain_text("tok/s")

    send(second, QUESTION)
    expect(answer(second, "original")).to_contain_text("Paris")
    second.locator("#compress").click()
    expect(second.locator("#export-button")).to_be_enabled()
    expect(first.locator("#stop")).to_be_enabled()  # still at it
    first.locator("#stop").click()
