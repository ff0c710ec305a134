"""The README's pictures, ``make pictures``: a walk with the built-in model in Chromium, into assets/.

What they show is what the page says today: run it after a change that a visitor sees.
"""

import os
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, FloatRect, Page, expect, sync_playwright

from studio.base.text import text
from tests.chromium import chromium
from tests.conftest import PATIENCE, ROOT, SHARED, served
from tests.walking import PLAIN, download, ready

ASSETS = ROOT / "assets"


def opened(browser: Browser, address: str, locale: str, width: int, height: int, dark: bool = False) -> Page:
    """Return the page as a new visitor sees it once the model and its map are there."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, locale=locale, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(address)
    expect(ready(page).locator("#verdict .tile.pending")).to_have_count(0)
    expect(page.locator("#map-grid .cell.open")).to_have_count(0)
    return page


def taken(page: Page, folder: Path) -> None:
    """Make the preset's file, take it, and have it read back: by llama.cpp, too, where the tests have one."""
    page.locator("#make").click()
    expect(page.locator("#make-progress .good")).to_be_visible()
    download(page, folder)
    page.locator("#verify").click()
    expect(page.locator("#verified .good")).to_be_visible()
    page.wait_for_timeout(2000)  # what was measured is painted


def picture(page: Page, name: str, down_to: str) -> None:
    """Take the page from its top, where the answers that stay in sight lie, down to a panel's end."""
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1000)
    box = page.locator(down_to).bounding_box()
    assert box is not None
    clip: FloatRect = {"x": 0.0, "y": 0.0, "width": 1440.0, "height": box["y"] + box["height"] + 24}
    page.screenshot(path=ASSETS / f"{name}.png", full_page=True, clip=clip)


def main() -> None:
    expect.set_options(timeout=PATIENCE)
    node = os.environ.get("STUDIO_NODE_LLAMA", str(SHARED / "node"))
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), OMP_NUM_THREADS="2", STUDIO_NODE_LLAMA=node) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = opened(browser, f"{address}?preset=balanced&program=ollama", "en-US", 1440, 900)
        taken(page, Path(folder))
        picture(page, "page", down_to="#verified")
        dark = opened(browser, address + PLAIN, "zh-CN", 1440, 900, dark=True)
        dark.locator("#colour label").get_by_text(text("figure.damage.choice", "zh-Hans"), exact=True).click()
        expect(dark.locator("#map-legend .map-title")).to_contain_text(text("figure.damage.legend", "zh-Hans")[:12])
        picture(dark, "page-dark-zh", down_to="#map-grid")
        phone = opened(browser, address, "zh-TW", 375, 812)
        phone.screenshot(path=ASSETS / "phone.png")
        browser.close()


if __name__ == "__main__":
    main()
