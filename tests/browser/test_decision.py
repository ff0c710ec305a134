"""The decision in a browser: what stays in sight and in the address; ``test_visits.py`` goes all the way to a file."""

import pytest
from playwright.sync_api import expect

from studio.base.text import LANGUAGES, text
from tests.walking import Visit, overflow, ready

pytestmark = pytest.mark.real
WIDTHS = (320, 375, 768, 1280)


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


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_sticks_out_and_the_answers_stay_in_sight(visit: Visit, address: str, language: str) -> None:
    locale = {"en": "en-US", "zh-Hans": "zh-CN", "zh-Hant": "zh-TW"}[language]
    page = ready(visit(address, locale=locale))
    expect(page.locator('#verdict [data-tile="fits"]')).to_contain_text("16 GB")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 720})
        assert overflow(page) <= 0, width
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_timeout(200)
        top = page.locator("#verdict").evaluate("(verdict) => verdict.getBoundingClientRect().top")
        assert -1 <= top < 200, width
        page.evaluate("scrollTo(0, 0)")


def test_a_hosts_menu_and_what_a_tile_means_are_reached_by_keyboard(visit: Visit, address: str) -> None:
    page = ready(visit(address))
    summary = page.locator('#verdict [data-tile="lose"] summary')
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator('#verdict [data-tile="lose"] details p')).to_be_visible()
    names = page.locator("#chat [role=log]").evaluate_all("(logs) => logs.map((log) => log.getAttribute('aria-label'))")
    assert names == [text("chat.original"), text("chat.compressed")]
