"""A real tab closed, opened again, and left without a network: what its visitor keeps, and what is given back."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from studio.base.text import text
from tests.conftest import COMPILED, PREPARED, served
from tests.walking import Visit, compress, figure, notice, plain, ready, send

pytestmark = [pytest.mark.real, pytest.mark.thorough]
FREE_AFTER = 20.0


@pytest.fixture(scope="module")
def cache(builtin: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the server's own, with what takes long to make."""
    folder = tmp_path_factory.mktemp("cache")
    for shared in (COMPILED, PREPARED):
        shared.mkdir(parents=True, exist_ok=True)
        (folder / shared.name).symlink_to(shared)
    return folder


@pytest.fixture(scope="module")
def address(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    waits = {"STUDIO_STOP_AFTER": "2", "STUDIO_FREE_AFTER": str(FREE_AFTER)}
    with served(tmp_path_factory.mktemp("server"), STUDIO_CACHE_DIR=str(cache), **waits) as found:
        yield found


def copies(cache: Path) -> list[Path]:
    return list((cache / "sessions").rglob("weights.studio"))


def until_none(cache: Path) -> None:
    ends = time.monotonic() + 600
    while copies(cache):
        assert time.monotonic() < ends
        time.sleep(0.2)


def again(page: Page) -> Page:
    """Close the tab, and open another where it was; at a reload Gradio would log the stream that ends as an error."""
    other = page.context.new_page()
    address = page.url
    page.close()
    other.goto(address)
    return other


def test_a_tab_opened_again_finds_the_copy_and_one_opened_late_the_figures(
    visit: Visit, address: str, cache: Path
) -> None:
    page = ready(visit(plain(address)))
    compress(page)
    send(page)
    page = again(page)
    expect(figure(page, "compressed")).not_to_have_text("–")
    expect(page.locator("#export-button")).to_be_enabled()
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    expect(page.locator('#compressed [data-testid="bot"]')).to_have_count(1)
    assert len(copies(cache)) == 1
    context, place = page.context, page.url
    page.close()
    until_none(cache)
    late = context.new_page()
    late.goto(place)
    expect(notice(late, "make-progress")).to_have_text(text("make.let_go"))
    expect(late.locator("#runs tbody tr")).to_have_count(1)
    expect(late.locator("#export-button")).to_be_disabled()


def test_a_network_that_is_gone_for_a_moment_costs_nothing(chromium: Any, address: str, cache: Path) -> None:
    context = chromium.new_context(locale="en-US", reduced_motion="reduce")  # its console may say what it likes
    page = context.new_page()
    page.set_default_timeout(600_000)
    page.goto(plain(address))
    ready(page)
    compress(page)
    hearts: list[str] = []
    page.on("request", lambda request: hearts.append(request.url) if "/heartbeat/" in request.url else None)
    page.evaluate("window.stop()")  # ends every stream, as a network that goes does
    page.evaluate("dispatchEvent(new Event('online'))")
    page.wait_for_timeout(2 * FREE_AFTER * 1000)
    assert len(hearts) == 1
    assert len(copies(cache)) == 1
    expect(page.locator("#export-button")).to_be_enabled()
    context.close()
    until_none(cache)
