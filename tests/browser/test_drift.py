"""A method chosen, carried out and measured on the page: the loss stands beside the size, and goes with the copy."""

import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Page, expect
from safetensors.torch import load_file, save_file

from studio.base.text import text
from tests.browser.conftest import Own
from tests.conftest import SENTENCES, save_tiny_model
from tests.walking import compress, notice, overflow

pytestmark = pytest.mark.real
DEAD = "model.layers.0.mlp.down_proj.weight"
FIGURE = re.compile(r"^KLD \d\.\d{3} ± \d\.\d{3}$")


@pytest.fixture
def name(own: Own, tmp_path: Path) -> str:
    """A model so small that all its windows are read in seconds, and of which nobody has measured anything."""
    save_tiny_model("llama", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"].zero_()  # nothing passes its gate: DEAD is given zeros
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    name = f"tests/{uuid.uuid4().hex}"
    (tmp_path / "model" / "README.md").write_text(name)
    own.hub.add(name, tmp_path / "model")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text(json.dumps({"text": " ".join(SENTENCES * 60)}))
    own.hub.add("datasets/owner/stories", tmp_path / "data")
    return name


@pytest.fixture
def page(own: Own, name: str, visit: Callable[..., Page]) -> Page:
    page = visit(own.opening(name))
    expect(page.locator("#strip .figure")).to_have_count(5)
    return page


def choose_method(page: Page, method: str) -> None:
    page.locator("#method input").click()
    page.get_by_role("option", name=re.compile(f"^{method}:")).click()


def read(page: Page, box: str, kind: str) -> None:
    page.locator(f"#{box}-kind label").filter(has_text=text(f"reads.{kind}")).click()


def upload(page: Page, box: str, content: bytes) -> None:
    file: FilePayload = {"name": "mine.txt", "mimeType": "text/plain", "buffer": content}
    page.locator(f"#{box} input[type=file]").set_input_files(files=[file])


def test_a_calibrated_copy_is_made_and_its_drift_measured(page: Page) -> None:
    expect(page.locator("#drift")).to_be_hidden()
    expect(page.locator("#calibration-kind")).to_be_hidden()
    choose_method(page, "gptq")
    expect(page.locator("#method")).to_contain_text(text("method.reads", text=text("method.builtin_text")))
    expect(page.locator("#calibration")).to_be_hidden()
    read(page, "calibration", "generated")
    expect(page.locator("#method")).to_contain_text(text("method.generated_text"))
    read(page, "calibration", "file")
    expect(page.locator("#method")).to_contain_text(text("method.reads", text=text("method.builtin_text")))
    expect(page.locator("#calibration")).to_be_visible()
    upload(page, "calibration", b"\xff\x00\xfe")
    expect(notice(page, "progress")).to_have_text(text("error.text_binary", file="mine.txt"))
    upload(page, "calibration", " ".join(SENTENCES * 60).encode())
    expect(page.locator("#method")).to_contain_text(text("method.reads", text="mine.txt"))
    compress(page)
    expect(page.locator("#export-summary code")).to_contain_text("--method gptq --calibrate mine.txt")

    expect(page.locator("#drift-headline")).to_contain_text(text("drift.none"))
    page.locator("#measure-drift").click()
    expect(page.locator("#drift-headline strong")).to_have_text(FIGURE)
    expect(page.locator("#stop-drift")).to_be_hidden()
    expect(page.locator("#measure-drift")).to_be_enabled()
    page.locator("#drift-details button").first.click()
    for name in ("kld", "p99", "same_top", "perplexity", "flips", "floor"):
        expect(page.locator(f'#drift-figures tr[data-figure="{name}"] td')).to_have_text(re.compile(r"\d"))
    expect(page.locator("#drift-figures")).to_contain_text(text("drift.builtin_text"))
    expect(page.locator("#drift-figures")).to_contain_text(text("drift.guidance_4"))
    page.locator("#language label").nth(1).click()
    expect(page.locator("#drift-headline")).to_contain_text(text("drift.name", "zh-Hans"))
    expect(page.locator("#drift-figures")).to_contain_text(text("drift.guidance_4", "zh-Hans"))
    page.set_viewport_size({"width": 375, "height": 800})
    assert overflow(page) <= 0
    page.locator("#language label").first.click()

    # A short text is one sentence; the copy takes its figures with it.
    read(page, "drift-text", "file")
    upload(page, "drift-text", b"Too short.")
    expect(notice(page, "drift-progress")).to_have_text(re.compile("one window needs 256"))
    choose_method(page, "nearest")
    expect(page.locator("#drift-headline strong")).to_have_text(FIGURE)
    compress(page)
    expect(page.locator("#drift-headline strong")).to_have_count(0)  # predicted at most: the figures went with the copy


@pytest.mark.thorough
def test_a_data_set_of_the_hub_calibrates_and_measures(page: Page) -> None:
    choose_method(page, "gptq")
    read(page, "calibration", "dataset")
    box = page.locator("#calibration-dataset textarea, #calibration-dataset input")
    box.fill("owner/nothing")
    box.press("Enter")
    expect(notice(page, "progress")).to_have_text(text("error.dataset_not_found", dataset="owner/nothing"))
    expect(box).to_have_value("owner/nothing")  # to be corrected
    box.fill("owner/stories")
    box.press("Enter")
    name = "hf://datasets/owner/stories/test.jsonl#text"
    expect(page.locator("#method")).to_contain_text(text("method.reads", text=name))
    compress(page)
    expect(page.locator("#export-summary code")).to_contain_text(f"--calibrate '{name}'")
    page.locator("#drift-details button").first.click()
    read(page, "drift-text", "dataset")
    page.locator("#drift-text-dataset textarea, #drift-text-dataset input").fill(name)
    page.locator("#drift-text-dataset button").click()
    expect(notice(page, "drift-progress")).to_have_text(text("reads.reads", text=name))
    page.locator("#measure-drift").click()
    expect(page.locator("#stop-drift")).to_be_hidden()
    expect(page.locator("#drift-figures")).to_contain_text(name)
    page.set_viewport_size({"width": 375, "height": 800})
    assert overflow(page) <= 0


@pytest.mark.thorough
def test_a_copy_is_calibrated_on_what_the_model_writes_and_what_that_misses_is_named(page: Page) -> None:
    choose_method(page, "least_squares")
    read(page, "calibration", "generated")
    compress(page)
    expect(page.locator("#export-summary code")).to_contain_text("--method least_squares --calibrate generated")
    expect(page.locator("#progress")).to_contain_text(text("method.unreached", count=1))
    expect(page.locator("#progress code")).to_have_text([DEAD])


def test_a_measurement_can_be_stopped(page: Page) -> None:
    compress(page)
    page.locator("#measure-drift").click()
    page.locator("#stop-drift").click()
    expect(page.locator("#stop-drift")).to_be_hidden()
    expect(page.locator("#measure-drift")).to_be_enabled()
    expect(page.locator("#drift-progress [role=progressbar]")).to_have_count(0)
