"""The chat in a browser: where answers part, going on, asking anew, stopping, and an original that does not fit."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from studio.base.text import text
from studio.runtime.sampling import Sampling
from tests.conftest import served, visiting
from tests.walking import QUESTION, answer, compress, notice, overflow, pick, plain, ready, send

pytestmark = pytest.mark.real

Visit = Callable[..., Page]
COLUMNS = ("original", "compressed")
SHARE = re.compile(r"original ([\d.]+)%, compressed ([\d.]+)%")


@pytest.fixture(scope="module")
def both(chromium: Any, address: str) -> Iterator[Page]:
    """A page with both columns ready: the built-in model at int4_asym parts from its original at once."""
    with visiting(chromium) as visit:
        page = ready(visit(plain(address)))
        compress(page)
        page.get_by_role("button", name=text("chat.settings")).click()
        yield page


@pytest.fixture
def page(both: Page) -> Page:
    """The same before anything is asked, with the settings that it begins with, which are in sight."""
    pick(both, "language", "English")
    expect(both.locator("#chat h2")).to_have_text(text("chat.heading"))  # else the answer comes after all is cleared
    set_longest(both, Sampling().max_new_tokens)
    both.locator("#clear").click()
    expect(both.locator('#chat [data-testid="bot"]')).to_have_count(0)
    expect(both.locator("#regenerate")).to_be_disabled()
    return both


def set_longest(page: Page, tokens: int) -> None:
    """Set how long an answer may be."""
    box = page.locator("#max_new_tokens input[type=number]")
    box.fill(str(tokens))
    box.press("Tab")


def said(page: Page, column: str) -> list[str]:
    """Return every bubble of a column, top to bottom."""
    return page.locator(f"#{column} .message-content").all_inner_texts()


def test_the_first_token_that_differs_is_marked_in_both_columns(page: Page) -> None:
    send(page, QUESTION)
    lines = [page.locator(f"#{column}-stats .parting").inner_text() for column in COLUMNS]
    found = [SHARE.findall(line) for line in lines]
    assert found[0] == found[1][::-1]  # the same four probabilities, each column's own token first
    for column, line, (here, _) in zip(COLUMNS, lines, found, strict=True):
        mark = page.locator(f"#{column} mark.parts")
        expect(mark).to_have_count(1)
        assert f"“{mark.inner_text()}”" in line
        assert mark.get_attribute("title") == line
        mark.focus()
        expect(mark).to_be_focused()
        own, other = (float(share) for share in (here if column == "original" else here[::-1]))
        assert own > other  # at temperature 0 each says what it finds likeliest
    for column in COLUMNS:
        expect(page.locator(f"#{column}-stats")).to_contain_text(text("chat.way_native"))
        expect(page.locator(f"#{column}-stats")).to_contain_text(re.compile(r"prompt of \d+ at \d+ tok/s"))
        expect(page.locator(f"#{column}-stats")).to_contain_text(re.compile(r"\d+% of the limit"))
    page.get_by_role("button", name=text("chat.speed")).click()
    expect(page.locator("#speed li [class*=decode]")).to_have_count(2)
    expect(page.locator("#roofline .point")).to_have_count(4)
    pick(page, "language", "繁體中文")
    expect(page.locator("#original-stats .parting")).to_contain_text("原模型")
    expect(page.locator("#original mark")).to_have_attribute("title", re.compile("原模型"))


def test_markup_that_is_typed_stays_text_beside_the_mark(page: Page) -> None:
    attack = "<mark title='x'>A</mark> <img src=x onerror=alert(1)> <|im_end|>"
    set_longest(page, 24)
    send(page, f"Repeat: {attack}")
    for column in COLUMNS:
        assert said(page, column)[0] == f"Repeat: {attack}"
        assert page.locator(f"#{column} img, #{column} mark[title=x]").count() == 0


def test_answers_asked_for_again_and_edited_take_the_place_of_the_last(page: Page) -> None:
    send(page, "Say hello.")
    send(page, QUESTION)
    before = said(page, "compressed")
    assert len(before) == 4
    page.locator("#prompt textarea").fill("half a thought")
    page.locator("#regenerate").click()
    expect(notice(page, "chat-notice")).to_have_text(text("chat.same_again"))
    assert said(page, "compressed") == before  # at temperature 0
    expect(page.locator("#prompt textarea")).to_have_value("half a thought")
    expect(page.locator("#compressed-stats")).to_contain_text("kept from before")

    page.locator("#edit").click()
    expect(page.locator("#prompt textarea")).to_have_value(QUESTION)
    expect(page.locator("#prompt textarea")).to_be_focused()
    expect(notice(page, "chat-notice")).to_have_text(text("chat.editing"))
    send(page, "What is the capital of Italy?")
    after = said(page, "compressed")
    assert after[:2] == before[:2]
    assert after[2] == "What is the capital of Italy?"
    assert len(after) == 4

    page.locator("#clear").click()
    expect(page.locator("#regenerate")).to_be_disabled()
    expect(page.locator("#edit")).to_be_disabled()


@pytest.mark.thorough
def test_another_temperature_gives_another_answer_each_time(visit: Visit, address: str) -> None:
    page = ready(visit(plain(address)))
    page.get_by_role("button", name=text("chat.settings")).click()
    page.locator("#temperature input[type=number]").fill("1.5")
    set_longest(page, 24)
    page.locator("#kv-bits label").nth(2).click()
    send(page, "Tell me a story.")
    first = answer(page, "original").inner_text()
    expect(page.locator("#original-stats")).to_contain_text("at 4 bits")
    page.locator("#regenerate").click()
    expect(page.locator("#stop")).to_be_disabled()
    expect(answer(page, "original")).not_to_have_text(first)


def test_stop_and_ask_again_at_once(page: Page) -> None:
    set_longest(page, 1024)
    page.locator("#prompt textarea").fill("Tell me a long story about a fox and a bear.")
    page.locator("#send").click()
    expect(page.locator("#compressed-stats")).to_contain_text("tok/s")
    expect(page.locator("#regenerate")).to_be_disabled()
    page.locator("#stop").click()
    expect(page.locator("#regenerate")).to_be_enabled()
    page.locator("#regenerate").click()
    expect(page.locator("#original-stats")).to_contain_text("kept from before")
    page.locator("#stop").click()
    expect(page.locator("#send")).to_be_enabled()
    send(page, QUESTION)
    expect(answer(page, "compressed")).to_contain_text("Paris")


def test_on_a_phone_the_figures_and_the_picture_fit(visit: Visit, address: str) -> None:
    page = ready(visit(plain(address), viewport={"width": 375, "height": 812}, color_scheme="dark"))
    compress(page)
    send(page, QUESTION)
    for name in ("chat.speed", "chat.settings"):
        page.get_by_role("button", name=text(name)).click()
    expect(page.locator("#kv-cache tbody tr")).to_have_count(4)
    expect(page.locator("#roofline .main-svg").first).to_be_visible()
    assert overflow(page) <= 0


def test_an_original_that_does_not_fit_reads_the_answer_afterwards(
    visit: Visit, builtin: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with served(tmp_path_factory.mktemp("small"), STUDIO_MODEL_MEMORY="200000000") as address:
        page = ready(visit(plain(address)))
        compress(page)
        send(page, QUESTION)
        expect(page.locator("#original-stats")).to_contain_text("KL divergence")
        assert answer(page, "original").inner_text() == answer(page, "compressed").inner_text()
        expect(page.locator("#original mark.parts")).to_have_count(1)
        expect(page.locator("#original .seen")).not_to_have_count(0)
        page.locator("#original-stats summary").click()
        expect(page.locator("#original-stats tbody tr").first).to_contain_text("“The”")
        page.close()  # before its server goes
