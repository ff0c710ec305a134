"""axe-core finds nothing that WCAG 2 A and AA forbid: light, dark, three languages, a desktop and a phone.

One visit goes through them all: opening the page costs more than asking again. ``test_visits.py`` asks once more, after
what a visitor made.
"""

from collections.abc import Sequence

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from studio.base.text import LANGUAGES, text
from tests.browser import axe
from tests.walking import Visit, compress, pick, plain, ready, send

pytestmark = pytest.mark.real
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 375, "height": 812}
AT_REST = (
    *(("en", size, scheme) for size in (DESKTOP, PHONE) for scheme in ("light", "dark")),
    ("zh-Hans", DESKTOP, "dark"), ("zh-Hans", PHONE, "light"),
    ("zh-Hant", PHONE, "dark"), ("zh-Hant", DESKTOP, "light"),
)  # fmt: skip
OPENED = (("en", DESKTOP, "light"), ("en", PHONE, "dark"))
CLOSED = "button.label-wrap:not(.open)"
Look = tuple[str, ViewportSize, str]


def look_at(page: Page, look: Look) -> None:
    """Show the page in a language, a size and a theme."""
    language, size, scheme = look
    if page.locator("html").get_attribute("lang") != language:
        page.locator("#language label").nth(list(LANGUAGES).index(language)).click()
        expect(page.locator("#presets h2")).to_have_text(text("preset.heading", language))
        expect(page.locator("html")).to_have_attribute("lang", language)
    page.set_viewport_size(size)
    if page.locator("body.dark").count() != (scheme == "dark"):
        page.locator("#theme").click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)  # colours that fade have arrived
    assert page.locator("body.dark").count() == (scheme == "dark")


def found(page: Page, looks: Sequence[Look]) -> list[str]:
    """Return what axe finds, a line for each element in each look."""
    lines = []
    for look in looks:
        look_at(page, look)
        lines += [f"{look[0]}, {look[1]['width']} px, {look[2]}: {each}" for each in axe.violations(page)]
    return lines


def test_nothing_that_wcag_forbids_is_on_the_page_or_behind_it(visit: Visit, address: str) -> None:
    axe.script()
    page = ready(visit(plain(address), viewport=DESKTOP, color_scheme="light"))
    expect(page.locator("#verdict .tile.pending")).to_have_count(0)
    expect(page.locator("#measuring .progress")).to_have_count(0)
    assert found(page, AT_REST) == []

    look_at(page, OPENED[0])
    page.locator(CLOSED).evaluate_all("(buttons) => buttons.forEach((each) => each.click())")
    expect(page.locator(CLOSED)).to_have_count(0)
    page.locator("#pin-layer input").fill("nothing")
    page.locator("#pin-layer input").press("Enter")
    page.locator("#pin").click()
    expect(page.locator("#pin-notice [role=alert]")).to_be_visible()
    pick(page, "colour", text("figure.bits.choice"))
    expect(page.locator("#map-legend .map-title")).to_have_text(text("figure.bits.legend"))
    compress(page)
    send(page, "What is the capital of France?")
    expect(page.locator("#original mark.parts")).to_have_count(1)
    page.locator("details:not([open]) > summary").evaluate_all("(marks) => marks.forEach((each) => each.click())")
    assert found(page, OPENED) == []
