"""What visitors do on the way: cancel, stop, ask for nothing, and take another model."""

import re
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from studio.base.text import text
from tests.walking import (
    QUESTION,
    Visit,
    answer,
    choose_mode,
    compress,
    download,
    endless,
    figure,
    notice,
    plain,
    ready,
    send,
)

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def page(looked_at: Page) -> Page:
    """One for all who only ask something."""
    return looked_at


def test_cancel_ends_a_compression_and_the_page_goes_on(visit: Visit, address: str) -> None:
    page = ready(visit(plain(address)))
    choose_mode(page, "nvfp4")  # one that takes its time
    expect(page.locator("#cancel")).to_be_disabled()
    page.locator("#compress").click()
    expect(page.locator("#progress [role=progressbar]")).to_be_visible()
    page.locator("#cancel").click()
    expect(notice(page, "progress")).to_have_text(text("stage.cancelled"))
    expect(page.locator("#compress")).to_be_enabled()
    expect(page.locator("#export-button")).to_be_disabled()
    expect(page.locator("#compressed")).to_contain_text(text("chat.nothing_compressed"))
    choose_mode(page, "int8_asym")
    compress(page)
    expect(page.locator("#export-button")).to_be_enabled()


def test_without_a_copy_the_original_answers_alone(page: Page) -> None:
    expect(page.locator("#compressed")).to_contain_text(text("chat.nothing_compressed"))
    send(page)
    expect(answer(page, "original")).to_contain_text("Paris")
    expect(page.locator('#compressed [data-testid="bot"]')).to_have_count(0)


def test_stop_ends_the_answers_and_the_page_goes_on(visit: Visit, address: str, tmp_path: Path) -> None:
    page = ready(visit(plain(address)))
    choose_mode(page, "int8_asym")
    compress(page)
    endless(page)
    page.locator("#prompt textarea").fill("Tell me a long story.")
    page.locator("#send").click()
    expect(page.locator("#compressed-stats")).to_contain_text("tok/s")
    page.locator("#stop").click()
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#send")).to_be_enabled()
    tokens = re.search(r"(\d+) tokens", page.locator("#compressed-stats").inner_text())
    assert tokens
    assert int(tokens[1]) < 4096
    page.locator("#temperature input[type=number]").fill("0")
    expect(answer(page, "compressed")).not_to_be_empty()
    assert zipfile.is_zipfile(download(page, tmp_path))
    send(page, QUESTION)
    expect(page.locator('#compressed [data-testid="bot"]')).to_have_count(2)
    page.locator("#clear").click()
    expect(page.locator('#compressed [data-testid="bot"]')).to_have_count(0)


@pytest.mark.parametrize("prompt", ["", "  \n "], ids=["empty", "blank"])
def test_a_prompt_with_nothing_in_it_is_one_sentence(page: Page, prompt: str) -> None:
    page.locator("#prompt textarea").fill(prompt)
    page.locator("#send").click()
    expect(notice(page, "chat-notice")).to_have_text(text("error.empty_prompt"))
    expect(page.locator("#send")).to_be_enabled()
    send(page, QUESTION)
    expect(answer(page, "original")).to_contain_text("Paris")
    expect(notice(page, "chat-notice")).to_have_count(0)


def test_an_unknown_model_is_one_sentence_and_the_one_before_it_stays(page: Page) -> None:
    page.locator("#model-name input").fill("nobody/no-such-model")
    page.locator("#model-name input").press("Enter")
    expect(notice(page, "model-notice")).to_have_text(text("error.hub_unreachable", model="nobody/no-such-model"))
    assert "Traceback" not in page.content()
    expect(figure(page, "original")).to_have_text("269 MB")
    expect(page.locator("#model-facts")).to_contain_text("135M weights")
    expect(page.locator("#model-name input")).to_have_value("nobody/no-such-model")  # to be corrected
    send(page)
    expect(answer(page, "original")).to_contain_text("Paris")
