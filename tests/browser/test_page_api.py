"""What the page gives to whoever speaks to its server: nothing but the page; no function, no figures, no files."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from studio.base.text import text
from studio.base.units import format_bytes
from studio.checkpoint import open_model
from studio.checkpoint.checkpoint import of_folder
from tests.browser.conftest import Own
from tests.conftest import PATIENCE, ROOT, save_tiny_model
from tests.walking import plain

Visit = Callable[..., Page]
TinyModel = Callable[[str], Path]


@pytest.fixture(scope="module")
def page(looked_at: Page) -> Page:
    """One for all who type what is refused."""
    return looked_at


def fetch(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=PATIENCE / 1000) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def choose(page: Page, name: str) -> None:
    """Type a model's name and press Enter."""
    page.locator("#model-name input").click()
    page.locator("#model-name input").fill(name)
    page.locator("#model-name input").press("Enter")


def test_a_name_can_be_typed_again_right_after_another(page: Page) -> None:
    """The box has the focus back by then, and a menu that takes no word while it is closed."""
    choose(page, "/etc")
    expect(page.locator("#model-notice .notice")).to_have_text(text("error.bad_model_name_page", model="/etc"))
    page.keyboard.press("Control+A")
    page.keyboard.type("/usr")
    page.keyboard.press("Enter")
    expect(page.locator("#model-notice .notice")).to_have_text(text("error.bad_model_name_page", model="/usr"))


# functions


def test_no_function_of_the_page_is_published(address: str) -> None:
    assert fetch(f"{address}gradio_api/info") == (200, b'{"named_endpoints":{},"unnamed_endpoints":{}}')


def test_a_function_that_is_called_without_its_page_takes_no_path(address: str, tiny_model: TinyModel) -> None:
    """Gradio lets whoever knows a function's name call it, so that has to be no more than a visitor can do."""
    path = str(tiny_model("llama"))
    assert text("error.choose_a_model") in call(address, "open_model", ["en", path], "without-a-visit")
    assert "SmolLM2" in call(address, "visit", [], "with-a-visit")
    refused = text("error.bad_model_name_page", model=path)
    assert refused in call(address, "open_model", ["en", path], "with-a-visit")


def call(address: str, name: str, inputs: list[str], visitor: str) -> str:
    """Call a function of the page as a program would, and return all it said."""
    body = json.dumps({"data": inputs, "session_hash": visitor}).encode()
    status, answer = fetch(f"{address}gradio_api/call/{name}", body)
    assert status == 200
    _, events = fetch(f"{address}gradio_api/call/{name}/{json.loads(answer)['event_id']}")
    said = [json.loads(line.removeprefix("data: ")) for line in events.decode().splitlines() if line[:5] == "data:"]
    return json.dumps(said, ensure_ascii=False)


def test_the_figures_of_the_server_are_not_open(address: str) -> None:
    assert fetch(f"{address}monitoring/summary")[0] in (403, 404)
    assert fetch(f"{address}gradio_api/monitoring/summary")[0] in (403, 404)


# files


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/etc/hostname",
        "../../../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "{root}/README.md",
        "{root}/studio/session/session.py",
        "{root}/.git/config",
        "{cache}",
        "README.md",
        "http://127.0.0.1:1/",
    ],
)
def test_no_file_of_the_machine_is_served(address: str, path: str) -> None:
    path = path.format(root=ROOT, cache=open_model.builtin_file())
    status, body = fetch(f"{address}gradio_api/file={path}")
    assert status in (400, 403, 404)
    assert b"root:" not in body


# paths as names


def test_a_path_is_no_model_on_a_page_for_others(page: Page, tiny_model: TinyModel) -> None:
    """One of them is a model's: each is one sentence, the same whether there is something or not."""
    model = f"{tiny_model('llama')}"
    for name in ("/etc", "../x", "~", "/no/such/folder", model, f"{open_model.builtin_file()}", "file:///etc"):
        choose(page, name)
        expect(page.locator("#model-notice .notice")).to_have_text(text("error.bad_model_name_page", model=name[:80]))
        expect(page.locator("#model-facts")).to_contain_text("135M weights")
    assert "Traceback" not in page.content()


def test_a_folder_is_a_model_on_a_page_of_ones_own(visit: Visit, own: Own, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    save_tiny_model("gpt2", tmp_path / "mine")
    page = visit(plain(own.address))
    expect(page.locator("#model-facts")).to_contain_text("llama")
    choose(page, str(tmp_path / "nothing"))
    expect(page.locator("#model-notice .notice")).to_have_text(text("error.no_safetensors", model="nothing"))
    choose(page, "../x")
    expect(page.locator("#model-notice .notice")).to_have_text(text("error.bad_model_name", model="../x"))
    choose(page, str(tmp_path / "mine"))
    weights = of_folder(tmp_path / "mine").weights
    expect(page.locator('[data-figure="original"] dd')).to_have_text(format_bytes(2 * weights))
    expect(page.locator("#model-facts")).to_contain_text("gpt2")
    page.locator("#compress").click()
    expect(page.locator("#progress .good")).to_be_visible()
    page.locator("#prompt textarea").fill("one")
    page.locator("#send").click()
    expect(page.locator("#prompt textarea")).to_have_value("")
    expect(page.locator('#compressed [data-testid="bot"]')).to_have_count(1)


# what is typed is words


PICTURES = "http://127.0.0.2:8899"
MARKUP = f"""<img src=x onerror="window.ran=1"><script>window.ran=1</script>
![x]({PICTURES}/markdown.png) <img src="{PICTURES}/html.png"> <p style="background:url({PICTURES}/style.png)">x</p>"""


def test_markup_in_a_message_runs_nothing_and_asks_no_other_machine(chromium: Browser, address: str) -> None:
    """What a model answers is shown in the same way, and may be anything. What the browser refuses, it logs."""
    page = chromium.new_page()
    asked: list[str] = []
    answered: list[str | None] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.abort()

    page.route(f"{PICTURES}/**", refuse)
    page.on("requestfinished", lambda request: answered.append(urlsplit(request.url).hostname))
    page.goto(plain(address))
    expect(page.locator('[data-figure="original"] dd')).to_have_text("269 MB")
    page.locator("#prompt textarea").fill(MARKUP)
    page.locator("#send").click()
    expect(page.locator("#prompt textarea")).to_have_value("")
    shown = page.locator('#original [data-testid="user"]')
    expect(shown).to_contain_text('<img src=x onerror="window.ran=1"><script>window.ran=1</script>')
    expect(shown.locator("img, p[style]")).to_have_count(0)
    assert page.evaluate("window.ran") is None
    assert asked == []
    assert set(answered) - {None} == {"127.0.0.1"}
    page.close()


def test_markup_in_a_models_name_is_shown_as_it_is(page: Page) -> None:
    name = '<img src=x onerror="window.ran=1">'
    choose(page, name)
    expect(page.locator("#model-notice .notice")).to_have_text(text("error.bad_model_name_page", model=name))
    assert page.evaluate("window.ran") is None


# the address


def test_port_0_takes_a_free_port(own: Own) -> None:
    assert urlsplit(own.address).port
    assert fetch(own.address)[0] == 200
