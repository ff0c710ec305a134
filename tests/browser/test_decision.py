"""The decision in a browser: what stays in sight and in the address; ``test_visits.py`` goes all the way to a file."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from studio.base.text import LANGUAGES, text
from tests.conftest import visiting
from tests.walking import Visit, overflow, ready

pytestmark = pytest.mark.real
WIDTHS = (320, 375, 768, 1280)


@pytest.fixture(scope="module")
def page(chromium: Any, address: str) -> Iterator[Page]:
    """The page as it begins: nothing is chosen by its address."""
    with visiting(chromium) as visit:
        yield ready(visit(address))


def test_the_choices_stand_in_the_address_and_it_leads_back(visit: Visit, address: str) -> None:
    page = ready(visit(address))
    page.locator("#preset label").nth(0).click()
    page.locator("#programs label").get_by_text(text("program.studio.title"), exact=True).click()
    expect(page.locator("#program input")).to_have_value(text("program.studio.title"))
    page.wait_for_function("location.search.includes('preset=smallest') && location.search.includes('program=studio')")
    expect(page.locator('#verdict [data-tile="take"]')).to_contain_text("int4_asym")
    again = page.context.new_page()  # as a reload, in which Gradio would log the stream that ends as an error
    again.goto(page.url)
    ready(again)
    expect(again.locator("#preset input:checked")).to_have_value("smallest")
    expect(again.locator('#verdict [data-tile="take"]')).to_contain_text("int4_asym")


def test_nothing_sticks_out_and_the_answers_stay_in_sight(page: Page) -> None:
    expect(page.locator('#verdict [data-tile="fits"]')).to_contain_text("16 GB")
    for i, language in enumerate(LANGUAGES):
        page.locator("#language label").nth(i).click()
        expect(page.locator("#presets h2")).to_have_text(text("preset.heading", language))
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 720})
            assert overflow(page) <= 0, (language, width)
            page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
            page.wait_for_timeout(200)
            top = page.locator("#verdict").evaluate("(verdict) => verdict.getBoundingClientRect().top")
            assert -1 <= top < 200, (language, width)
            page.evaluate("scrollTo(0, 0)")


def test_what_a_tile_means_is_reached_by_keyboard_and_both_columns_are_named(page: Page) -> None:
    page.locator("#language label").first.click()
    expect(page.locator("#presets h2")).to_have_text(text("preset.heading"))
    summary = page.locator('#verdict [data-tile="lose"] summary')
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator('#verdict [data-tile="lose"] details p')).to_be_visible()
    names = page.locator("#chat [role=log]").evaluate_all("(logs) => logs.map((log) => log.getAttribute('aria-label'))")
    assert names == [text("chat.original"), text("chat.compressed")]
