"""The decision in a browser: from opening the page to a GGUF file that a real llama.cpp answers from."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from studio.base.text import LANGUAGES, text
from studio.export.gguf import llama_cpp
from tests.conftest import SHARED, served
from tests.walking import Visit, download, overflow, ready

pytestmark = pytest.mark.real
WIDTHS = (320, 375, 768, 1280)


@pytest.fixture(scope="module")
def address(builtin: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, where llama.cpp is if the tests have one."""
    node = os.environ.get("STUDIO_NODE_LLAMA", str(SHARED / "node"))
    with served(tmp_path_factory.mktemp("server"), STUDIO_NODE_LLAMA=node) as found:
        yield found


def tile(page: Page, name: str) -> str:
    """Return what a tile answers."""
    return page.locator(f'#verdict [data-tile="{name}"]').inner_text()


def test_one_click_leads_to_answers_a_loss_and_a_file_for_ollama(
    visit: Visit, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ready(visit(f"{address}?preset=safest"))
    expect(page.locator("#verdict .tile.pending")).to_have_count(0)
    expect(page.locator("#preset input:checked")).to_have_value("safest")
    expect(page.locator("#plan")).to_have_count(0)
    assert "16 GB" in tile(page, "fits")
    assert "SmolLM2-135M-Instruct-q8_0.gguf" in tile(page, "take")
    expect(page.locator("#reads")).to_contain_text(text("export.reads", program="Ollama", file="", size="")[:20])
    page.locator("#make").click()
    expect(page.locator("#make-progress .good")).to_be_visible()
    expect(page.locator("#samples .sample")).to_have_count(3)
    expect(page.locator("#samples .sample").first).to_contain_text("Paris")
    expect(page.locator('#verdict [data-tile="lose"]')).to_contain_text(text("verdict.measured"))
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    promised = int(re.findall(r"([\d,]+) B", tile(page, "take"))[0].replace(",", ""))
    file = download(page, tmp_path)
    assert file.suffix == ".gguf"
    assert promised < file.stat().st_size < promised + (8 << 20)  # header and vocabulary on top
    page.locator("#verify").click()
    expect(page.locator("#verified .good")).to_contain_text(text("verify.same", tensors=272, tokens=0)[:20])
    monkeypatch.setenv("STUDIO_NODE_LLAMA", os.environ.get("STUDIO_NODE_LLAMA", str(SHARED / "node")))
    if llama_cpp.found() is not None:
        expect(page.locator("#verified tbody tr", has_text="llama.cpp")).to_have_count(1)


def test_the_choices_stand_in_the_address_and_a_reload_leads_back(visit: Visit, address: str) -> None:
    page = ready(visit(address))
    page.locator("#preset label").nth(0).click()
    page.locator("#programs label").get_by_text(text("program.studio.title"), exact=True).click()
    expect(page.locator("#program input")).to_have_value(text("program.studio.title"))
    page.wait_for_function("location.search.includes('preset=smallest') && location.search.includes('program=studio')")
    expect(page.locator('#verdict [data-tile="take"]')).to_contain_text("int4_asym")
    page.reload()
    ready(page)
    expect(page.locator("#preset input:checked")).to_have_value("smallest")
    expect(page.locator('#verdict [data-tile="take"]')).to_contain_text("int4_asym")


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
