"""The main job in a browser, from choosing a model to the file on disk, in both languages."""

import hashlib
import json
import re
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from studio.base.text import text
from studio.checkpoint.headers import read_header
from tests.walking import (
    BLOCKS,
    PROJECTIONS,
    QUESTION,
    Visit,
    answer,
    check_language,
    choose_mode,
    choose_ratio,
    compress,
    download,
    figure,
    notice,
    pick,
    plain,
    ready,
    send,
)

pytestmark = pytest.mark.real


INT8_BYTES = 135_164_160
"""The built-in model at int8_asym."""


COMPRESSED_PARTS = "#size-chart .bar[data-model=compressed] i"


WATCH = """(id) => {
  const bar = document.getElementById(id), seen = window.seen = [];
  new MutationObserver(() => {
    const shown = bar.querySelector('[role=progressbar]');
    const value = shown?.getAttribute('aria-valuenow'), stage = shown?.ariaLabel;
    const layer = bar.querySelector('code')?.textContent;
    if (value && seen.at(-1)?.value !== Number(value)) seen.push({value: Number(value), stage, layer});
  }).observe(bar, {childList: true, subtree: true, attributes: true, characterData: true});
}"""
"""Keep what a progress bar shows from now on."""


def planned_bytes(page: Page) -> int:
    """Return the bytes of the plan as the figure of sizes shows them, part by part."""
    parts = page.locator(COMPRESSED_PARTS).evaluate_all("(parts) => parts.map((part) => part.title)")
    numbers = [re.search(r"([\d,]+) B", part) for part in parts]
    return sum(int(number[1].replace(",", "")) for number in numbers if number is not None)


def test_a_visitor_goes_from_the_model_to_the_file_and_the_same_way_in_chinese(page: Page, tmp_path: Path) -> None:
    expect(page.locator("#model-facts")).to_contain_text("135M weights · llama · source Q4_1/Q8_0")
    expect(page.locator("#map-legend .map-title")).to_have_text(text("figure.weight.legend"))
    expect(page.locator("#export-button")).to_be_disabled()
    choose_mode(page, "int8_asym")
    expect(figure(page, "compressed")).to_have_text("135 MB")
    expect(figure(page, "error")).to_have_text(re.compile(r"^0\.\d\d%$"))  # surveyed, before anything is compressed
    surveyed = figure(page, "error").inner_text()

    page.evaluate(WATCH, "progress")
    compress(page)
    seen = [step for step in page.evaluate("window.seen") if step["stage"] == text("stage.compress")]
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
    in_chinese(page, tmp_path)


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


def in_chinese(page: Page, tmp_path: Path) -> None:
    """After a walk in English, so that what is there already is seen to change as well."""
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
    check_export(download(page, tmp_path), tmp_path / "again", "int8_sym", planned_bytes(page))


@pytest.mark.parametrize(
    ("locale", "language"),
    [("zh-TW", "zh-Hant"), ("de-DE", "en")],  # the others: visitors of test_every_visitor.py
)
def test_the_page_opens_in_the_browsers_language(visit: Visit, address: str, locale: str, language: str) -> None:
    page = ready(visit(plain(address), locale=locale))
    check_language(page, language)
    expect(page.locator("#prompt textarea")).to_have_value(text("chat.prompt_example", language))


@pytest.mark.thorough
def test_the_page_asks_this_machine_alone_and_logs_no_error(visit: Visit, address: str) -> None:
    """Every other test checks the same at its end."""
    page = visit("about:blank")
    asked, logged = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: logged.append(message.text) if message.type == "error" else None)
    page.goto(plain(address))
    expect(page.locator("#map-grid .cell")).not_to_have_count(0)
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert logged == []


def test_every_choice_changes_the_figures_at_once(looked_at: Page) -> None:
    page = looked_at
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
    choose_mode(page, "int4_asym")
    pick(page, "group-size", "64")
    pick(page, "backup", "int8_asym")
    check_plan(page, 85_760_640, "85.8 MB", "3.14×", "5.100")


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


def test_group_sizes_that_do_not_fit_say_why(looked_at: Page) -> None:
    words = text("plan.group_size_misfits", sizes="128, 256", widths="576, 1536")
    expect(looked_at.locator("#group-size")).to_contain_text(words)
    offered = looked_at.locator("#group-size input").evaluate_all("(inputs) => inputs.map((input) => input.value)")
    assert offered == ["-1", "32", "64"]
