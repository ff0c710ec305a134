"""The README's pictures, ``make pictures``: a walk with the built-in model in Chromium, into assets/.

What they show is what the page says today: run it after a change that a visitor sees.
"""

import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from studio.base.text import text
from tests.chromium import chromium
from tests.conftest import PATIENCE, ROOT, served

ASSETS = ROOT / "assets"


def opened(browser: Browser, address: str, locale: str, width: int, height: int, dark: bool = False) -> Page:
    """Return the page as a new visitor sees it once the model and its map are there."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, locale=locale, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(address)
    expect(page.locator('#strip [data-figure="original"] dd')).to_have_text("269 MB")
    expect(page.locator("#map-grid .cell.open")).to_have_count(0)
    return page


def walked(page: Page, language: str) -> None:
    """Plan nine tenths at 4 bits, colour by predicted damage, compress, and ask both models."""
    page.locator("#ratio input[type=number]").fill("0.9")
    page.locator("#ratio input[type=number]").press("Tab")
    page.locator("#colour label").get_by_text(text("figure.damage.choice", language), exact=True).click()
    expect(page.locator("#map-legend .map-title")).to_contain_text(text("figure.damage.legend", language)[:12])
    page.locator("#compress").click()
    expect(page.locator("#progress .good")).to_be_visible()
    page.locator("#send").click()
    expect(page.locator("#prompt textarea")).to_have_value("")
    page.wait_for_timeout(2000)  # what the answer leaves behind is painted


def main() -> None:
    expect.set_options(timeout=PATIENCE)
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), OMP_NUM_THREADS="2") as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for name, language, locale, dark in (
            ("page", "en", "en-US", False),
            ("page-dark-zh", "zh-Hans", "zh-CN", True),
        ):
            page = opened(browser, address, locale, 1440, 900, dark)
            walked(page, language)
            page.screenshot(path=ASSETS / f"{name}.png", full_page=True)
        phone = opened(browser, address, "zh-TW", 375, 812)
        phone.screenshot(path=ASSETS / "phone.png")
        browser.close()


if __name__ == "__main__":
    main()
