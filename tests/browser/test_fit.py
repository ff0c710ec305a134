"""What holds of the page in every state: nothing sticks out, menus close, and the newest picture stays."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from studio.base.text import LANGUAGES, text
from tests.browser.conftest import Own
from tests.conftest import save_tiny_model
from tests.walking import compress, overflow, plain, send

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
LONG = "an-organisation-whose-name-has-no-end/" + "a-model-whose-name-has-no-end" * 2
WIDTHS = (320, 375, 414, 1280)
MENUS = ("model-name", "host", "program", "context", "mode", "method", "pin-layer", "pin-scheme")
OUTSIDE = """() => [...document.querySelectorAll('body *')].filter((element) => {
  const {left, right, width, height} = element.getBoundingClientRect();
  if (!width || !height || (left > -1 && right < document.documentElement.clientWidth + 1)) return false;
  if (element.closest('#js-plotly-tester')) return false;  // where Plotly measures words, far outside
  for (let box = element.parentElement; box; box = box.parentElement) {  // what a box of its own scrolls or cuts
    if (box.matches('.table, .heat-scroll') || (box !== document.body && getComputedStyle(box).overflowX === 'clip'))
      return false;
  }
  return getComputedStyle(element).visibility !== 'hidden';
}).map((element) => `${element.tagName} ${element.className} in ${element.closest('[id]')?.id}`)"""
"""What is drawn to the left or right of the window."""


@pytest.fixture
def page(own: Own, visit: Callable[..., Page]) -> Page:
    page = visit(plain(own.address))
    expect(page.locator("#strip .figure")).to_have_count(5)
    return page


def put_in(page: Page, box: str, words: str) -> None:
    page.locator(f"#{box} input").fill(words)
    page.locator(f"#{box} input").press("Enter")


def open_all(page: Page) -> None:
    page.locator("button.label-wrap:not(.open)").evaluate_all("(buttons) => buttons.forEach((each) => each.click())")
    expect(page.locator("button.label-wrap:not(.open)")).to_have_count(0)
    expect(page.locator("#pin-layer input")).to_be_visible()


def test_nothing_sticks_out_with_everything_open_and_names_without_end(own: Own, page: Page, tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "model")
    own.hub.add(LONG, tmp_path / "model")
    put_in(page, "model-name", LONG)
    expect(page.locator("#model-facts")).to_contain_text(LONG.partition("/")[2])
    compress(page)
    send(page, "Supercalifragilistic" * 12)
    page.locator("#measure-drift").click()
    expect(page.locator("#drift-headline strong")).to_be_visible()
    expect(page.locator("#stop-drift")).to_be_hidden()
    open_all(page)
    for i, language in enumerate(LANGUAGES):
        page.locator("#language label").nth(i).click()
        expect(page.locator("#plan h2")).to_have_text(text("plan.heading", language))
        put_in(page, "model-name", f"{'n' * 90}/{'x' * 90}")
        expect(page.locator("#model-notice [role=alert]")).to_be_visible()
        put_in(page, "pin-layer", "no.such.layer" * 12)
        page.locator("#pin").click()
        expect(page.locator("#pin-notice [role=alert]")).to_be_visible()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 812})
            assert overflow(page) <= 0, (language, width)
            assert page.evaluate(OUTSIDE) == [], (language, width)


def test_a_menu_that_is_left_with_the_keyboard_closes(page: Page) -> None:
    open_all(page)
    lists, focused = page.locator("ul[role=listbox]"), "document.activeElement.getAttribute('role')"
    for menu in MENUS:
        for key in ("Tab", "Shift+Tab"):
            page.locator(f"#{menu} input").focus()
            expect(lists).to_have_count(1)
            page.keyboard.press(key)
            inside = f"document.querySelector('#{menu}').contains(document.activeElement)"
            assert page.evaluate(focused) != "listbox", (menu, key)
            assert not page.evaluate(inside), (menu, key)
            if page.evaluate(focused) == "combobox":  # two stand side by side: the next one's is open now
                page.evaluate("document.activeElement.blur()")
            expect(lists).to_have_count(0)
    expect(page.locator("#mode input")).to_have_value(text("plan.mode_int4_asym"))


def test_a_picture_that_comes_too_late_does_not_cover_the_newer_one(page: Page) -> None:
    """The answer to a moved control is held back until the colour picked after it is painted."""
    held: list[tuple[Route, APIResponse]] = []
    title = page.locator("#map-legend .map-title")
    expect(page.locator("#measuring .progress")).to_have_count(0)
    expect(page.locator("#strip .pending")).to_have_count(0)
    page.route("**/gradio_api/run/**", lambda route: held.append((route, route.fetch())), times=1)
    page.locator("#group-size label").nth(1).click()
    while not held:
        page.wait_for_timeout(50)
    page.locator("#colour label").nth(3).click()
    expect(title).to_have_text(text("figure.bits.legend"))
    cells = page.locator("#map-grid .cell").evaluate_all("(cells) => cells.map((cell) => cell.style.background)")
    assert len(set(cells)) == 1, "by bits all are of one colour"
    for route, response in held:
        route.fulfill(response=response)
    expect(page.locator("#undo")).to_be_enabled()  # of the late answer: it has arrived
    expect(title).to_have_text(text("figure.bits.legend"))
    after = page.locator("#map-grid .cell").evaluate_all("(cells) => cells.map((cell) => cell.style.background)")
    assert after == cells
    expect(page.locator("#map-legend")).to_contain_text("int4_asym-g32")
