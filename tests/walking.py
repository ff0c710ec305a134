"""The page as a visitor sees and uses it: its figures and notices, choosing, compressing, asking, downloading."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from studio.base.text import text

Visit = Callable[..., Page]


PLAIN = "?preset=custom&mode=int4_asym&program=studio"
"""What an address says for a page whose plan is every layer at 4 bits, to nearest, with all its controls in sight."""
PROJECTIONS, BLOCKS = 7, 30
QUESTION = "What is the capital of France?"


def plain(address: str) -> str:
    """Return the address of the page with a plan of one's own."""
    return address + PLAIN


def ready(page: Page) -> Page:
    """Wait for the model that the page begins with."""
    expect(figure(page, "original")).to_have_text("269 MB")
    return page


def figure(page: Page, name: str) -> Locator:
    """Return a figure of the strip."""
    return page.locator(f'#strip [data-figure="{name}"] dd')


def label(page: Page, name: str) -> Locator:
    return page.locator(f'#strip [data-figure="{name}"] dt')


def notice(page: Page, place: str) -> Locator:
    """Return what a panel has to say, without Gradio's own clock beside it."""
    return page.locator(f"#{place} .notice")


def choose_mode(page: Page, mode: str) -> None:
    page.locator("#mode input").click()
    page.get_by_role("option", name=re.compile(rf"^{mode}\b")).click()


def compress(page: Page) -> None:
    """Compress and wait for the end."""
    page.locator("#compress").click()
    expect(page.locator("#progress .good")).to_be_visible()


def send(page: Page, prompt: str | None = None) -> None:
    """Ask, what the box says already or ``prompt``, and wait for the end of both answers."""
    if prompt is not None:
        page.locator("#prompt textarea").fill(prompt)
    page.locator("#send").click()
    expect(page.locator("#prompt textarea")).to_have_value("")


def answer(page: Page, column: str) -> Locator:
    """Return the newest answer of a column."""
    return page.locator(f'#{column} [data-testid="bot"]').last


def download(page: Page, folder: Path) -> Path:
    """Press the button, and return the file that arrives."""
    with page.expect_download() as coming:
        page.locator("#export-button").click()
    file = folder / coming.value.suggested_filename
    coming.value.save_as(file)
    return file


def check_language(page: Page, language: str) -> None:
    """Check headings, labels, buttons, strip and figures."""
    for panel in ("plan", "map", "size", "chat", "export"):
        expect(page.locator(f"#{panel} h2")).to_have_text(text(f"{panel}.heading", language))
    for name in ("original", "compressed", "smaller", "bits", "error"):
        expect(label(page, name)).to_have_text(text(f"strip.{name}", language))
    for control in ("mode", "group_size", "ratio", "backup"):
        block = page.locator(f"#{control.replace('_', '-')}")
        expect(block.get_by_test_id("block-info")).to_have_text(text(f"plan.{control}", language))
    for button, key in {"compress": "plan.compress", "send": "chat.send", "export-button": "export.button"}.items():
        expect(page.locator(f"#{button}")).to_have_text(text(key, language))
    expect(page.locator("#title h1")).to_have_text(text("page.title", language))
    expect(page.locator("#map-grid thead th").first).to_have_text(text("map.block", language))
    expect(page.locator("#size-chart .swatches li").first).to_contain_text(text("size.blocks", language))
    expect(page.locator("#language input:checked")).to_have_value(language)


def endless(page: Page) -> None:
    """Let answers go on for half a minute: words drawn so freely hardly ever say that they are the last."""
    page.get_by_role("button", name=text("chat.settings")).click()
    page.locator("#max_new_tokens input[type=number]").fill("4096")
    page.locator("#temperature input[type=number]").fill("2")


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    width: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return width


def choose_ratio(page: Page, ratio: str) -> None:
    page.locator("#ratio input[type=number]").fill(ratio)
    page.locator("#ratio input[type=number]").press("Tab")


def pick(page: Page, group: str, option: str) -> None:
    """Choose one of a group of radio buttons."""
    page.locator(f"#{group} label").get_by_text(option, exact=True).click()
