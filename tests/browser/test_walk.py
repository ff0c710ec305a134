"""The main job in a browser, from choosing a model to the file on disk, and what visitors do on the way."""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from studio.base.text import text
from studio.checkpoint.headers import read_header
from tests.conftest import served

pytestmark = pytest.mark.real

Visit = Callable[..., Page]

QUESTION = "What is the capital of France?"
INT8_BYTES = 135_164_160
"""The built-in model at int8_asym."""
PROJECTIONS, BLOCKS = 7, 30
COMPRESSED_PARTS = "#size-chart .bar[data-model=compressed] i"

WATCH = """(id) => {
  const bar = document.getElementById(id), seen = window.seen = [];
  new MutationObserver(() => {
    const value = bar.querySelector('[role=progressbar]')?.getAttribute('aria-valuenow');
    const layer = bar.querySelector('code')?.textContent;
    if (value && seen.at(-1)?.value !== Number(value)) seen.push({value: Number(value), layer});
  }).observe(bar, {childList: true, subtree: true, attributes: true, characterData: true});
}"""
"""Keep what a progress bar shows from now on."""


@pytest.fixture(scope="module")
def address(builtin: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, with the built-in model prepared."""
    with served(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture
def page(visit: Visit, address: str) -> Page:
    """The page as an English visitor finds it, when the model is there."""
    return ready(visit(address))


def ready(page: Page) -> Page:
    """Wait for the model that the page begins with."""
    expect(figure(page, "original")).to_have_text("269 MB")
    return page


def figure(page: Page, name: str) -> Locator:
    """Return a figure of the strip."""
    return page.locator(f'#strip [data-figure="{name}"] dd')


def label(page: Page, name: str) -> Locator:
    return page.locator(f'#strip [data-figure="{name}"] dt')


def notice(page: Page, place: str) -> Locator:
    """Return what a panel has to say, without Gradio's own clock beside it."""
    return page.locator(f"#{place} .notice")


def choose_mode(page: Page, mode: str) -> None:
    page.locator("#mode input").click()
    page.get_by_role("option", name=re.compile(rf"^{mode}\b")).click()


def choose_ratio(page: Page, ratio: str) -> None:
    page.locator("#ratio input[type=number]").fill(ratio)
    page.locator("#ratio input[type=number]").press("Tab")


def pick(page: Page, group: str, option: str) -> None:
    """Choose one of a group of radio buttons."""
    page.locator(f"#{group} label").get_by_text(option, exact=True).click()


def compress(page: Page) -> None:
    """Compress and wait for the end."""
    page.locator("#compress").click()
    expect(page.locator("#progress .good")).to_be_visible()


def send(page: Page, prompt: str | None = None) -> None:
    """Ask, what the box says already or ``prompt``, and wait for the end of both answers."""
    if prompt is not None:
        page.locator("#prompt textarea").fill(prompt)
    page.locator("#send").click()
    expect(page.locator("#prompt textarea")).to_have_value("")


def answer(page: Page, column: str) -> Locator:
    """Return the newest answer of a column."""
    return page.locator(f'#{column} [data-testid="bot"]').last


def planned_bytes(page: Page) -> int:
    """Return the bytes of the plan as the figure of sizes shows them, part by part."""
    parts = page.locator(COMPRESSED_PARTS).evaluate_all("(parts) => parts.map((part) => part.title)")
    return sum(int(re.search(r"([\d,]+) B", part)[1].replace(",", "")) for part in parts)  # type: ignore[index]


def download(page: Page, folder: Path) -> Path:
    """Press the button, and return the file that arrives."""
    with page.expect_download() as coming:
        page.locator("#export-button").click()
    file = folder / coming.value.suggested_filename
    coming.value.save_as(file)
    return file


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    width: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return width


# the walk


def test_a_visitor_goes_from_the_model_to_the_file(page: Page, tmp_path: Path) -> None:
    expect(page.locator("#model-facts")).to_contain_text("135M weights · llama · source Q4_1/Q8_0")
    expect(page.locator("#map-legend .map-title")).to_have_text(text("figure.weight.legend"))
    expect(page.locator("#export-button")).to_be_disabled()
    choose_mode(page, "int8_asym")
    expect(figure(page, "compressed")).to_have_text("135 MB")
    expect(figure(page, "error")).to_have_text(re.compile(r"^0\.\d\d%$"))  # surveyed, before anything is compressed
    surveyed = figure(page, "error").inner_text()

    page.evaluate(WATCH, "progress")
    compress(page)
    seen = page.evaluate("window.seen")
    assert len(seen) > 1
    assert [step["value"] for step in seen] == sorted(step["value"] for step in seen)
    assert {"layers"} < set(".".join(step["layer"] for step in seen).split("."))
    expect(page.locator("#map-grid .cell")).to_have_count(PROJECTIONS * BLOCKS)
    expect(page.locator("#map-grid .cell.open")).to_have_count(0)
    words = page.locator("#map-grid .cell").evaluate_all("(cells) => cells.map((cell) => cell.ariaLabel)")
    assert all(0.3 < float(re.findall(r"([\d.]+)%", word)[0]) < 5 for word in words)
    expect(figure(page, "error")).to_have_text(surveyed)

    expect(page.locator("#prompt textarea")).to_have_value(QUESTION)
    send(page)
    for column in ("original", "compressed"):
        expect(answer(page, column)).to_contain_text("Paris")
        stats = page.locator(f"#{column}-stats")
        expect(stats).to_contain_text(re.compile(r"[1-9][\d.]* tok/s · first token [\d.]+ s"))
    expect(page.locator("#original-stats")).to_contain_text("weights 269 MB")
    expect(page.locator("#compressed-stats")).to_contain_text(re.compile(r"weights 13[5-9] MB"))  # packed, in a layout

    expect(page.locator("#export-summary")).to_contain_text("135,164,160 B")
    whole = download(page, tmp_path)
    assert whole.name == "SmolLM2-135M-Instruct-int8_asym.zip"
    check_export(whole, tmp_path / "unpacked", "int8_asym", INT8_BYTES)
    expect(notice(page, "export-progress")).to_contain_text("Ready")


def check_export(file: Path, folder: Path, mode: str, nbytes: int) -> None:
    """Unpack what was downloaded: nothing missing, nothing damaged, and of the size that was promised."""
    with zipfile.ZipFile(file) as archive:
        assert {Path(name).parent for name in archive.namelist()} == {Path(file.stem)}
        archive.extractall(folder)
    folder /= file.stem
    recipe = json.loads((folder / "recipe.json").read_text())
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert recipe["sha256"] == {name: sums[name] for name in sums.keys() - {"recipe.json", "README.md"}}
    assert {"weights.studio", "config.json", "tokenizer.json"} <= recipe["sha256"].keys()
    assert recipe["choices"]["mode"] == mode
    assert sum(entry.nbytes for entry in read_header(folder / "weights.studio").values()) == nbytes


def test_a_visitor_goes_the_same_way_in_chinese(page: Page, tmp_path: Path) -> None:
    """After a walk in English, so that what is there already is seen to change as well."""
    choose_mode(page, "int8_asym")
    compress(page)
    send(page)
    said = answer(page, "compressed").inner_text()

    pick(page, "language", "简体中文")
    check_language(page, "zh-Hans")
    expect(page.locator("#map-legend .map-title")).to_have_text(text("figure.weight.legend", "zh-Hans"))
    assert answer(page, "compressed").inner_text() == said
    expect(figure(page, "compressed")).to_have_text("135 MB")

    choose_mode(page, "int8_sym")
    expect(notice(page, "progress")).to_contain_text(text("plan.stale", "zh-Hans"))
    compress(page)
    seconds = r"[\d.]+"
    expect(notice(page, "progress")).to_have_text(re.compile(text("stage.done", "zh-Hans", seconds=seconds)))
    send(page, QUESTION)
    for column in ("original", "compressed"):
        expect(answer(page, column)).to_contain_text("Paris")
    expect(page.locator("#compressed")).to_contain_text(text("chat.compressed_scheme", "zh-Hans", scheme="int8_sym"))
    check_export(download(page, tmp_path), tmp_path / "unpacked", "int8_sym", planned_bytes(page))


def check_language(page: Page, language: str) -> None:
    """Check headings, labels, buttons, strip and figures."""
    for panel in ("plan", "map", "size", "chat", "export"):
        expect(page.locator(f"#{panel} h2")).to_have_text(text(f"{panel}.heading", language))
    for name in ("original", "compressed", "smaller", "bits", "error"):
        expect(label(page, name)).to_have_text(text(f"strip.{name}", language))
    for control in ("mode", "group_size", "ratio", "backup"):
        block = page.locator(f"#{control.replace('_', '-')}")
        expect(block.get_by_test_id("block-info")).to_have_text(text(f"plan.{control}", language))
    for button, key in {"compress": "plan.compress", "send": "chat.send", "export-button": "export.button"}.items():
        expect(page.locator(f"#{button}")).to_have_text(text(key, language))
    expect(page.locator("#title h1")).to_have_text(text("page.title", language))
    expect(page.locator("#map-grid thead th").first).to_have_text(text("map.block", language))
    expect(page.locator("#size-chart .swatches li").first).to_contain_text(text("size.blocks", language))
    expect(page.locator("#language input:checked")).to_have_value(language)


@pytest.mark.parametrize(
    ("locale", "language"),
    [("en-GB", "en"), ("zh-CN", "zh-Hans"), ("zh-TW", "zh-Hant"), ("de-DE", "en")],
)
def test_the_page_opens_in_the_browsers_language(visit: Visit, address: str, locale: str, language: str) -> None:
    page = ready(visit(address, locale=locale))
    check_language(page, language)
    expect(page.locator("#prompt textarea")).to_have_value(text("chat.prompt_example", language))


def test_the_page_asks_this_machine_alone_and_logs_no_error(visit: Visit, address: str) -> None:
    """Every other test checks the same at its end."""
    page = visit("about:blank")
    asked, logged = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: logged.append(message.text) if message.type == "error" else None)
    page.goto(address)
    expect(page.locator("#map-grid .cell")).not_to_have_count(0)
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert logged == []


# plan


def test_every_choice_changes_the_figures_at_once(page: Page) -> None:
    check_plan(page, 85_760_640, "85.8 MB", "3.14×", "5.100")
    choose_mode(page, "int8_asym")
    check_plan(page, INT8_BYTES, "135 MB", "1.99×", "8.039")
    choose_mode(page, "int4_asym")
    choose_ratio(page, "0.9")
    check_plan(page, 90_761_184, "90.8 MB", "2.96×", "5.398")
    pick(page, "group-size", "32")
    check_plan(page, 94_489_344, "94.5 MB", "2.85×", "5.620")
    choose_ratio(page, "1")
    pick(page, "backup", text("plan.backup_none"))
    check_plan(page, 118_071_936, "118 MB", "2.28×", "7.022")
    choose_mode(page, "nf4")
    pick(page, "group-size", text("plan.group_size_whole"))
    check_plan(page, 110_088_576, "110 MB", "2.44×", "6.547")


def check_plan(page: Page, nbytes: int, size: str, smaller: str, bits: str) -> None:
    """Check the figures of the strip, and the exact bytes behind them."""
    expect(figure(page, "compressed")).to_have_text(size)
    expect(figure(page, "smaller")).to_have_text(smaller)
    expect(figure(page, "bits")).to_have_text(bits)
    page.wait_for_function(
        """([parts, bytes]) => [...document.querySelectorAll(parts)]
          .reduce((sum, part) => sum + Number(part.title.match(/([0-9,]+) B/)[1].replaceAll(',', '')), 0) === bytes""",
        arg=[COMPRESSED_PARTS, nbytes],
    )
    assert planned_bytes(page) == nbytes


def test_group_sizes_that_do_not_fit_say_why(page: Page) -> None:
    words = text("plan.group_size_misfits", sizes="128, 256", widths="576, 1536")
    expect(page.locator("#group-size")).to_contain_text(words)
    offered = page.locator("#group-size input").evaluate_all("(inputs) => inputs.map((input) => input.value)")
    assert offered == ["-1", "32", "64"]


# compress


def test_cancel_ends_a_compression_and_the_page_goes_on(page: Page) -> None:
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


# chat


def endless(page: Page) -> None:
    """Let answers go on for half a minute: words drawn so freely hardly ever say that they are the last."""
    page.get_by_role("button", name=text("chat.settings")).click()
    page.locator("#max_new_tokens input[type=number]").fill("4096")
    page.locator("#temperature input[type=number]").fill("2")


def test_without_a_copy_the_original_answers_alone(page: Page) -> None:
    expect(page.locator("#compressed")).to_contain_text(text("chat.nothing_compressed"))
    send(page)
    expect(answer(page, "original")).to_contain_text("Paris")
    expect(page.locator('#compressed [data-testid="bot"]')).to_have_count(0)


def test_stop_ends_the_answers_and_the_page_goes_on(page: Page, tmp_path: Path) -> None:
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


# bad input


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


# every visitor


def test_the_keyboard_alone_reaches_compress_and_runs_it(page: Page) -> None:
    page.locator("body").press("Tab")
    for _ in range(60):
        if page.evaluate("document.activeElement.id") == "compress":
            break
        page.keyboard.press("Tab")
    expect(page.locator("#compress")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    expect(page.locator("#progress .good")).to_be_visible()


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en-US"), ("dark", "en-US"), ("light", "zh-CN")])
def test_on_a_phone_nothing_sticks_out_and_the_answers_come_first(
    visit: Visit, address: str, scheme: str, locale: str
) -> None:
    phone = {"width": 375, "height": 812}
    page = ready(visit(address, viewport=phone, color_scheme=scheme, locale=locale))
    assert page.locator("body.dark").count() == (scheme == "dark")
    expect(page.locator("#map-grid .cell")).not_to_have_count(0)
    assert overflow(page) <= 0
    compress(page)
    expect(page.locator("#export-summary code")).to_be_visible()
    assert overflow(page) <= 0
    tops = [box(page, panel)["y"] for panel in ("chat", "plan", "map", "size", "export")]
    assert tops == sorted(tops)
    for panel in ("model", "chat", "plan", "map", "size", "export"):
        found = box(page, panel)
        assert found["x"] >= 0
        assert found["x"] + found["width"] <= phone["width"]


def box(page: Page, panel: str) -> Any:
    """Return where a panel stands, in pixels from the page's beginning."""
    return page.locator(f"#{panel}").evaluate(
        "(panel) => { const {x, y, width} = panel.getBoundingClientRect(); return {x, y: y + scrollY, width} }"
    )


def test_two_visitors_at_once_do_not_see_each_other(visit: Visit, address: str) -> None:
    ours, theirs = ready(visit(address)), ready(visit(address, locale="zh-CN"))
    choose_mode(ours, "int8_asym")
    ours.locator("#compress").click()
    theirs.locator("#prompt textarea").fill("Say hello.")
    theirs.locator("#send").click()
    expect(ours.locator("#progress .good")).to_be_visible()
    send(ours)
    expect(theirs.locator("#prompt textarea")).to_have_value("")
    expect(answer(ours, "compressed")).to_contain_text("Paris")
    expect(answer(theirs, "original")).not_to_be_empty()
    assert "hello" not in ours.locator("#chat").inner_text().lower()
    assert "France" not in theirs.locator("#chat").inner_text()
    assert "Paris" not in theirs.locator("#chat").inner_text()
    expect(theirs.locator('#compressed [data-testid="bot"]')).to_have_count(0)
    expect(theirs.locator("#export-button")).to_be_disabled()
    expect(figure(theirs, "compressed")).to_have_text("85.8 MB")
    check_language(theirs, "zh-Hans")
    check_language(ours, "en")


def test_a_visitor_who_waits_for_another_can_change_their_mind(visit: Visit, address: str) -> None:
    """One machine does one thing at a time; Cancel and Stop are heard while it answers another visitor."""
    first, second = ready(visit(address)), ready(visit(address))
    endless(first)
    first.locator("#prompt textarea").fill("Tell me a long story.")
    first.locator("#send").click()
    expect(first.locator("#original-stats")).to_contain_text("tok/s")

    for button, end, place in (("compress", "cancel", "progress"), ("send", "stop", "chat-notice")):
        second.locator(f"#{button}").click()
        expect(notice(second, place)).to_have_text(text("stage.waiting"))
        second.locator(f"#{end}").click()
        expect(second.locator(f"#{end}")).to_be_disabled()
    expect(first.locator("#stop")).to_be_enabled()  # still at it
    first.locator("#stop").click()

    expect(notice(second, "progress")).to_have_text(text("stage.cancelled"))
    expect(second.locator("#send")).to_be_enabled()
    assert second.locator('#original [data-testid="bot"]').count() == 0
    expect(second.locator("#export-button")).to_be_disabled()
    send(second, QUESTION)
    expect(answer(second, "original")).to_contain_text("Paris")
