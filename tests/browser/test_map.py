"""The map as a control: colours that follow the survey, cells that are picked, pinned and undone."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request, expect

from studio.base.text import text
from tests.conftest import visiting
from tests.walking import BLOCKS, PROJECTIONS, choose_mode, choose_ratio, figure, pick, plain, ready

pytestmark = pytest.mark.real
CELL = '#map-grid .cell[data-layer="model.layers.4.mlp.up_proj.weight"]'
OTHER = '#map-grid .cell[data-layer="model.layers.9.self_attn.o_proj.weight"]'
PAINTED_ANEW = "const box = document.querySelector('#map-grid table').parentElement; box.innerHTML = box.innerHTML"


@pytest.fixture(scope="module")
def opened(chromium: Any, address: str) -> Iterator[Page]:
    with visiting(chromium) as visit:
        page = ready(visit(plain(address)))
        expect(page.locator("#map-grid .cell.open")).to_have_count(0)
        expect(page.locator("#verdict .tile.pending")).to_have_count(0)  # the loss is predicted
        yield page


@pytest.fixture
def page(opened: Page) -> Page:
    """One page for all, with the plan and the colour that it begins with, and nothing left to measure."""
    if opened.locator("#mode input").input_value() != text("plan.mode_int4_asym"):
        choose_mode(opened, "int4_asym")
    if opened.locator("#ratio input[type=number]").input_value() != "1":
        choose_ratio(opened, "1")
    pick(opened, "colour", text("figure.weight.choice"))
    expect(opened.locator("#map-legend .map-title")).to_have_text(text("figure.weight.legend"))
    expect(figure(opened, "compressed")).to_have_text("85.8 MB")
    expect(opened.locator("#map-grid .cell.open")).to_have_count(0)
    expect(opened.locator("#measuring .progress")).to_have_count(0)
    return opened


def pin(page: Page, pattern: str) -> None:
    """Type which layers are to be pinned, and press the button."""
    closed = page.locator("#pinning button.label-wrap:not(.open)")
    if closed.count():
        closed.click()
    page.locator("#pin-layer input").fill(pattern)
    page.locator("#pin-layer input").press("Enter")
    page.locator("#pin").click()


def test_a_cell_that_is_clicked_can_be_pinned_and_the_pin_undone(page: Page) -> None:
    before = figure(page, "compressed").inner_text()
    page.locator(CELL).click()
    expect(page.locator("#pin-layer input")).to_have_value("model.layers.4.mlp.up_proj.weight")
    # 8 bits twice, three modes at three groups; and what an earlier run of the tests had measured
    expect(page.locator("#layer-card tbody tr").nth(10)).to_be_visible()
    page.locator("#pin").click()
    expect(page.locator(f"{CELL}.pinned.kept")).to_have_text("8")
    expect(page.locator("#pins code")).to_have_text("model.layers.4.mlp.up_proj.weight")
    expect(figure(page, "compressed")).not_to_have_text(before)
    page.locator("#undo").click()
    expect(page.locator("#map-grid .cell.pinned")).to_have_count(0)
    expect(figure(page, "compressed")).to_have_text(before)
    expect(page.locator("#undo")).to_be_disabled()


def test_a_pattern_pins_a_row_and_all_pins_can_be_removed(page: Page) -> None:
    pin(page, "*.down_proj")
    expect(page.locator("#map-grid .cell.pinned")).to_have_count(BLOCKS)
    page.locator("#unpin").click()
    expect(page.locator("#map-grid .cell.pinned")).to_have_count(0)


def test_a_pattern_that_is_no_layers_is_one_sentence(page: Page) -> None:
    pin(page, "nothing")
    expect(page.locator("#pin-notice .notice")).to_have_text(text("error.no_such_layer", pattern="nothing"))


def test_arrow_keys_move_over_the_map_and_enter_picks(page: Page) -> None:
    assert page.locator('#map-grid .cell[tabindex="0"]').count() == 1
    page.locator("#map-grid .cell").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    focused = page.evaluate("document.activeElement.dataset.layer")
    assert focused == "model.layers.1.self_attn.q_proj.weight"
    page.keyboard.press("Enter")
    expect(page.locator("#pin-layer input")).to_have_value(focused)


def test_a_map_painted_anew_loses_neither_key_nor_click(page: Page) -> None:
    """It is painted twice a second while it fills in: the focus comes back before a key can be pressed, and what the
    mouse pressed is what it lets go, though it is another element."""
    page.locator(CELL).focus()
    focused = page.evaluate(
        f"async () => {{ {PAINTED_ANEW}; await null; return document.activeElement.dataset.layer }}"
    )
    assert focused == "model.layers.4.mlp.up_proj.weight"
    page.locator(OTHER).hover()
    page.mouse.down()
    page.evaluate(PAINTED_ANEW)
    page.mouse.up()
    expect(page.locator("#pin-layer input")).to_have_value("model.layers.9.self_attn.o_proj.weight")


def test_a_move_asks_the_server_once_and_nothing_after_it(page: Page) -> None:
    """What was measured already is looked up: no survey follows, and no second answer repaints the page."""
    asked: list[str] = []

    def note(request: Request) -> None:
        _, of_the_page, path = urlsplit(request.url).path.rpartition("/gradio_api/")
        if of_the_page:
            asked.append(path)

    page.on("request", note)
    for mode, size in (("int8_asym", "135 MB"), ("int4_asym", "85.8 MB")):
        choose_mode(page, mode)
        expect(figure(page, "compressed")).to_have_text(size)
    choose_ratio(page, "0.9")
    expect(figure(page, "compressed")).to_have_text("90.8 MB")
    # An event of its own, after which all that came of the moves has come.
    page.locator(CELL.replace(".4.", ".5.")).click()
    expect(page.locator("#pin-layer input")).to_have_value("model.layers.5.mlp.up_proj.weight")
    expect(page.locator("#layer-card tbody tr").nth(10)).to_be_visible()
    page.remove_listener("request", note)
    assert asked[:4] == ["run/predict"] * 3 + ["queue/join"]


def test_a_mode_seldom_chosen_is_measured_when_it_is(page: Page) -> None:
    choose_mode(page, "int5_sym")
    expect(figure(page, "compressed")).not_to_have_text("85.8 MB")
    expect(page.locator("#map-grid .cell.open")).to_have_count(0)
    expect(figure(page, "error")).to_have_text(re.compile(r"^\d\.\d\d%$|^1\d\.\d\d%$"))
    expect(page.locator("#map-grid .cell")).to_have_count(PROJECTIONS * BLOCKS)


def test_the_map_shows_bits_when_asked(page: Page) -> None:
    pick(page, "colour", text("figure.bits.choice"))
    expect(page.locator("#map-legend .map-title")).to_have_text(text("figure.bits.legend"))
    expect(page.locator("#map-grid .heat-scale")).to_have_count(0)


def test_output_errors_are_measured_when_asked_for(page: Page) -> None:
    pick(page, "colour", text("figure.output.choice"))
    expect(page.locator("#map-legend .map-title")).to_have_text(text("figure.output.legend"))
    expect(page.locator("#map-grid .cell.open")).to_have_count(0)
    expect(page.locator("#measuring .progress")).to_have_count(0)
    page.locator(CELL).click()
    # Of its usual schemes: a survey kept from another visit may know of more, whose outputs nobody asked for.
    row = page.locator("#layer-card tr", has_text="int4_asym-g64")
    expect(row).to_have_count(1)
    expect(row).not_to_contain_text("–")


def test_predicted_damage_is_shown_with_its_sum(page: Page) -> None:
    pick(page, "colour", text("figure.damage.choice"))
    expect(page.locator("#map-legend .map-title")).to_contain_text("nats a token")
    expect(page.locator("#map-grid .cell.open")).to_have_count(0)
    expect(page.locator("#measuring .progress")).to_have_count(0)
    page.locator(CELL).click()
    expect(page.locator("#layer-card")).to_contain_text(text("figure.damage.column"))
