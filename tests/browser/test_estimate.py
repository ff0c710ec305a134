"""A model on the Hub whose weights are not here: its map drawn from a sample, looking like the estimate that it is."""

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from studio.base.text import text
from tests.browser.conftest import Own
from tests.conftest import save_tiny_model
from tests.hub_server import LocalHub
from tests.walking import choose_mode, choose_ratio, compress, figure, notice, pick

pytestmark = pytest.mark.real
CELLS = 2 * 7
SLOW = 40_000
"""Bytes a second, of each answer."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which a sample is a part: its largest weights are high or wide."""
    folder = tmp_path_factory.mktemp("models") / "high"
    save_tiny_model("llama", folder, intermediate_size=8192)
    return folder


@pytest.fixture
def name(own: Own, folder: Path) -> str:
    """The model's name and its commit are ones that nobody has sampled yet."""
    name = f"tests/{uuid.uuid4().hex}"
    (folder / "README.md").write_text(name)
    own.hub.add(name, folder)
    return name


@pytest.fixture
def page(own: Own, name: str, visit: Callable[..., Page]) -> Page:
    page = visit(own.opening(name))
    expect(page.locator("#estimate")).to_be_visible()
    return page


@pytest.fixture
def hub(own: Own) -> Iterator[LocalHub]:
    """The Hub, which is well again afterwards."""
    yield own.hub
    own.hub.bytes_per_second, own.hub.fault = float("inf"), ""


def sent(hub: LocalHub) -> int:
    return hub.sent("model.safetensors")


def test_the_map_is_estimated_from_what_the_button_says(own: Own, hub: LocalHub, name: str, page: Page) -> None:
    expect(page.locator("#estimate")).to_have_text(re.compile(r"Estimate the map: read [\d.]+ MB of [\d.]+ MB"))
    expect(figure(page, "error")).to_have_text(text("strip.error_unknown"))
    expect(page.locator("#map-grid .cell.guessed")).to_have_count(0)
    before = sent(hub)
    page.locator("#estimate").click()
    expect(page.locator("#map-grid .cell.guessed")).to_have_count(CELLS)
    expect(page.locator("#estimate")).to_be_hidden()
    expect(page.locator("#halt")).to_be_hidden()
    expect(notice(page, "measuring")).to_have_count(0)
    size = hub.models[name].blobs["model.safetensors"].size
    assert 0 < sent(hub) - before < 0.7 * size
    assert not list(own.downloads.glob(f"*{name.partition('/')[2]}/**/*.safetensors"))
    expect(figure(page, "error")).to_have_text(re.compile(r"^~\s\d+\.\d\d%$"))
    expect(page.locator('#strip .estimate[data-figure="error"]')).to_have_count(1)
    expect(page.locator("#map-legend .map-title")).to_have_text(text("figure.weight.legend") + text("map.sampled"))
    cell = page.locator('#map-grid .cell[data-layer="model.layers.0.mlp.up_proj.weight"]')
    expect(cell).to_have_attribute("aria-label", re.compile(r"error ~\d+\.\d\d% \(95 %: \d+\.\d\d% to \d+\.\d\d%\)$"))
    cell.click()
    expect(page.locator("#layer-card tbody tr").first).to_contain_text("~")

    # An assignment from samples is an estimate too, and what is not sampled yet is offered.
    choose_ratio(page, "0.5")
    expect(page.locator('#strip .estimate[data-figure="compressed"] dd')).to_have_text(re.compile("^~"))
    choose_mode(page, "int3_sym")
    expect(page.locator("#estimate")).to_be_visible()
    choose_mode(page, "nvfp4")
    expect(page.locator("#estimate")).to_be_hidden()
    expect(page.locator("#map-legend")).to_contain_text(text("map.estimate_needs_whole", modes="nvfp4"))
    choose_mode(page, "int4_asym")
    expect(page.locator("#map-grid .cell.guessed")).to_have_count(CELLS)
    pick(page, "colour", text("figure.bits.choice"))
    expect(page.locator("#map-grid .cell.guessed")).to_have_count(0)
    pick(page, "colour", text("figure.weight.choice"))

    # With the weights here, everything is measured.
    compress(page)
    expect(page.locator("#map-grid .cell.guessed")).to_have_count(0)
    expect(page.locator("#map-grid .cell.open")).to_have_count(0)
    expect(page.locator("#strip .estimate")).to_have_count(0)
    expect(page.locator("#estimate")).to_be_hidden()


def test_a_sample_can_be_stopped_and_gone_on_with(hub: LocalHub, page: Page) -> None:
    hub.bytes_per_second = SLOW
    page.locator("#estimate").click()
    expect(page.locator("#map-grid .cell.guessed").first).to_be_visible()
    expect(page.locator("#estimate")).to_be_disabled()
    page.locator("#halt").click()
    expect(page.locator("#estimate")).to_be_enabled()
    expect(page.locator("#halt")).to_be_hidden()
    some = page.locator("#map-grid .cell.guessed").count()
    assert 0 < some < CELLS
    expect(notice(page, "measuring")).to_have_count(0)
    hub.bytes_per_second = float("inf")
    page.locator("#estimate").click()
    expect(page.locator("#map-grid .cell.guessed")).to_have_count(CELLS)


def test_a_hub_that_fails_is_one_sentence_and_the_offer_stays(hub: LocalHub, page: Page) -> None:
    hub.fault = "whole"
    page.locator("#estimate").click()
    expect(notice(page, "measuring")).to_have_text(text("error.hub_bad_range", file="model.safetensors"))
    expect(page.locator("#estimate")).to_be_enabled()
    expect(page.locator("#halt")).to_be_hidden()
    hub.fault = ""
    page.locator("#estimate").click()
    expect(page.locator("#map-grid .cell.guessed")).to_have_count(CELLS)
