"""``python -m tests.bench.compress_page move|move_many``: a control moved in headless Chromium, as JSON.

The time is from the hand's event (its own time stamp: a key or the pointer going down) to the end of the first frame in
which strip, map and chart of sizes all show what the move makes of them. The page is served by a process of its own.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, sync_playwright

from studio.base.progress import Progress
from studio.checkpoint import open_model
from studio.checkpoint.checkpoint import Checkpoint
from studio.planning import survey_file
from studio.ui.launch import launch
from tests.bench.compress_builtin import BLOCKS, made_up, made_up_survey, many_layers
from tests.chromium import chromium
from tests.walking import plain

ROOT = Path(__file__).resolve().parents[2]
SETTLED = """() => document.querySelector('#map-grid .cell')
  && !(document.querySelector('#measuring')?.textContent ?? '').trim()"""
"""Nothing is measured any more."""

WATCH = """() => {
  const show = {
    strip: () => document.querySelector('#strip dl').textContent,
    map: () => [...document.querySelectorAll('#map-grid .cell')]
      .map((cell) => cell.className + cell.style.background + cell.ariaLabel).join(),
    sizes: () => [...document.querySelectorAll('#size-chart .bar i')]
      .map((part) => part.style.width + part.title).join(),
  };
  const look = () => Object.values(show).map((figure) => figure());
  const before = look();
  let begun = null;
  const begin = (event) => { begun ??= event.timeStamp };
  for (const kind of ['keydown', 'pointerdown']) document.addEventListener(kind, begin, {capture: true, once: true});
  window.move = null;
  const watch = new MutationObserver(() => {
    const now = look();
    if (begun === null || now.some((figure, i) => figure === before[i])) return;
    watch.disconnect();
    requestAnimationFrame(() => {  // runs before this frame is drawn, the message after it
      const drawn = new MessageChannel();
      drawn.port1.onmessage = () => {
        window.move = {milliseconds: performance.now() - begun, isFinal: () => look().join() === now.join()};
      };
      drawn.port2.postMessage(0);
    });
  });
  watch.observe(document.body, {childList: true, subtree: true, attributes: true, characterData: true});
}"""
"""Take the time of the next move; ``isFinal`` says later whether what was on show then is what stayed."""
PAUSE = 300
"""Milliseconds between two moves: a hand that looks at what it did."""

MOVES: tuple[tuple[str, str], ...] = (
    *[("ratio", "ArrowLeft")] * 6,
    *[("mode", "int4_sym"), *[("ratio", "ArrowLeft")] * 3, ("mode", "int4_asym"), *[("ratio", "ArrowLeft")] * 3],
    *[("mode", "nf4"), *[("ratio", "ArrowLeft")] * 3, ("mode", "int4_asym")],
    *[("group-size", "32"), *[("ratio", "ArrowRight")] * 3, ("group-size", "64"), *[("ratio", "ArrowRight")] * 3],
    *[("group-size", "whole channel"), *[("ratio", "ArrowRight")] * 3, ("group-size", "64")],
    *[("backup", "int8_sym"), *[("ratio", "ArrowRight")] * 2, ("backup", "none: 16 bits")],
    *[*[("ratio", "ArrowLeft")] * 2, ("backup", "int8_asym"), ("mode", "int8_asym"), ("mode", "int4_asym")],
    *[("ratio", "ArrowRight")] * 2,
)
"""Each changes strip, map and sizes."""

CONFIG = {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": BLOCKS}
"""What the page asks the made-up model's files beside its weights: what a cache of it would hold."""


def serve(port: str) -> None:
    """Serve the page with a made-up model of 9,890 weights, surveyed, in the built-in one's place."""
    layers = many_layers()
    folder = Path(tempfile.mkdtemp(dir=os.environ["STUDIO_CACHE_DIR"]))  # which goes with the cache
    (folder / "config.json").write_text(json.dumps(CONFIG))
    checkpoint = replace(made_up(layers), folder=folder)
    survey_file.keep(checkpoint, made_up_survey(layers))

    def opened(
        name: str, paths: bool, revision: str | None = None, login: str | None = None
    ) -> Generator[Progress, None, Checkpoint]:
        yield Progress("headers")
        return checkpoint

    open_model.open_model = opened
    launch(port=int(port))


@contextmanager
def served(many: bool) -> Iterator[str]:
    """Serve the page from a process of its own, and give its address."""
    with tempfile.TemporaryDirectory() as cache:
        words = ["-m", "tests.bench.compress_page", "serve", "0"] if many else ["-m", "studio", "serve", "--port", "0"]
        with served_by(*words, **({"STUDIO_CACHE_DIR": cache} if many else {})) as (address, _):
            yield address


@contextmanager
def served_by(*words: str, **environment: str) -> Iterator[tuple[str, int]]:
    """Serve the page from a process of its own, and give its address and the process's number."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, "-W", "ignore", *words],
            cwd=ROOT,
            env=os.environ | {"GRADIO_TEMP_DIR": folder} | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            address = next(filter(None, (re.search(r"http://\S+", line) for line in server.stdout)))
            yield address[0], server.pid
        finally:
            server.terminate()
            server.communicate()


def option(page: Page, control: str, value: str) -> Locator:
    """Return what a click on makes the move, with a list opened where it stands in one."""
    if control == "mode":
        page.locator("#mode input").click()
        return page.get_by_role("option", name=re.compile(rf"^{value}\b"))
    return page.locator(f"#{control} label").get_by_text(value, exact=True)


def moved(page: Page, control: str, value: str) -> float:
    """Move one control and return the milliseconds until the page shows it."""
    target = page.locator("#ratio input[type=range]") if control == "ratio" else option(page, control, value)
    target.scroll_into_view_if_needed()
    if control == "ratio":
        target.focus()
    page.evaluate(WATCH)
    if control == "ratio":
        page.keyboard.press(value)
    else:
        target.click()
    page.wait_for_function("window.move", timeout=30_000)
    page.wait_for_timeout(PAUSE)
    assert page.evaluate("window.move.isFinal()"), f"{control} {value}: what was shown first did not stay"
    return float(page.evaluate("window.move.milliseconds"))


def measure(many: bool) -> dict[str, Any]:
    with served(many) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900}, locale="en-US")
        page.goto(plain(address))
        page.wait_for_function(SETTLED, timeout=60_000)
        page.wait_for_timeout(2000)
        times = [moved(page, control, value) / 1e3 for control, value in MOVES]
        browser.close()
    return {"seconds": statistics.quantiles(times, n=20)[-1], "median": statistics.median(times), "moves": len(times)}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        print(json.dumps(measure(sys.argv[1] == "move_many")))
