"""What somebody is told who asks for more than a visitor may: a sentence, in their language."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from studio.base.text import text
from tests.conftest import served
from tests.walking import plain

Visit = Callable[..., Page]
CELL = '#map-grid .cell[data-layer="model.layers.4.mlp.up_proj.weight"]'


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page for strangers who may do next to nothing."""
    few = {"STUDIO_LIMIT_VISITOR_JOBS_PER_HOUR": "1", "STUDIO_LIMIT_CALLS_PER_MINUTE": "16"}
    with served(tmp_path_factory.mktemp("server"), STUDIO_ACCESS="public", **few) as found:
        yield found


def test_one_job_too_many_is_a_sentence_beside_the_button(visit: Visit, strict: str) -> None:
    page = visit(plain(strict), locale="zh-CN")
    expect(page.locator('[data-figure="original"] dd')).to_have_text("269 MB")
    page.locator("#compress").click()
    expect(page.locator("#progress .good")).to_be_visible()
    page.locator("#export-button").click()
    said = text("error.too_many_jobs", "zh-Hans", minutes="|").partition("|")[0]
    expect(page.locator("#export-progress .error")).to_contain_text(said)


def test_too_much_at_once_is_a_sentence_on_the_page(chromium: Browser, strict: str) -> None:
    """The browser itself logs each refusal as an error, so this visitor is not one who may see none."""
    page = chromium.new_context(locale="zh-TW", reduced_motion="reduce").new_page()
    page.goto(plain(strict))
    expect(page.locator('[data-figure="original"] dd')).to_have_text("269 MB")
    said = text("door.calls", "zh-Hant", seconds="|").partition("|")[0].strip()
    for _ in range(60):
        page.locator(CELL).click()
        if page.get_by_text(said).count():  # it goes after some seconds
            break
        page.wait_for_timeout(100)
    else:
        pytest.fail("nothing was said")
    page.close()
