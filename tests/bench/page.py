"""``make bench-page``: what somebody who opens the page waits for, into tests/bench/PAGE.md.

Headless Chromium with an empty cache opens the page of a server that runs already. Beside each figure stands that of a
Gradio page with nothing on it but a heading, opened by turns with ours, for what is Gradio's own is not ours to mend.

* first paint with content, and the first verdict: from the navigation to the browser's own time stamps.
* two answers: from the navigation over one click on *Make it* to the first question with both answers written out.
* the largest shift of layout: the largest single ``layout-shift`` that no hand caused, from the navigation to the end.
* a moved control: what ``make bench-compress`` has for 211 and 9,890 weights, measured again here.
"""

import socket
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.bench.compress_page import measure as moves
from tests.bench.compress_page import served
from tests.bench.measure import machine
from tests.chromium import chromium

FILE = Path(__file__).with_name("PAGE.md")
ROUNDS = 3
BARE = """import sys, gradio as gr
with gr.Blocks() as page:
    gr.Markdown("# Nothing")
page.launch(server_port=int(sys.argv[1]), quiet=True, prevent_thread_lock=True)
print("there", flush=True)
page.block_thread()"""
"""A page with a heading and nothing else."""
SHIFTS = """window.shifts = [];
new PerformanceObserver((list) => window.shifts.push(...list.getEntries().filter((each) => !each.hadRecentInput)
  .map((each) => [each.value, each.sources.map((of) => of.node?.closest?.('[id]')?.id ?? '').join(' ')])))
  .observe({type: 'layout-shift', buffered: true});"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
VERDICT = "document.querySelectorAll('#verdict .tile .answer').length >= 3 && performance.now()"
ANSWERED = """() => {
  const first = document.querySelectorAll('#samples .sample:first-child .said');
  const said = [...first].map((each) => each.innerText.trim());
  const isOver = document.querySelector('#samples .sample:nth-child(2)');
  return said.length === 2 && said.every((each) => each.length > 1) && isOver && performance.now();
}"""


@dataclass(frozen=True)
class Opened:
    """One visit; seconds from the navigation."""

    paint: float
    verdict: float
    answers: float
    done: float
    shift: float
    shifted: str
    """The ids of what moved most."""


def opened(browser: Browser, address: str) -> tuple[Page, float]:
    """Return a page with an empty cache, and the seconds to its first paint with content."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US").new_page()
    page.add_init_script(SHIFTS)
    page.goto(address)
    page.wait_for_function(PAINT, timeout=60_000)
    return page, page.evaluate(PAINT) / 1e3


def visit(browser: Browser, address: str) -> Opened:
    """Open the page, press the one button, and wait for its end."""
    page, paint = opened(browser, address)
    verdict = page.wait_for_function(VERDICT, timeout=60_000).json_value() / 1e3
    page.locator("#make").click()
    answers = page.wait_for_function(ANSWERED, timeout=600_000).json_value() / 1e3
    page.wait_for_selector("#make-progress .good", timeout=600_000)
    done = page.evaluate("performance.now()") / 1e3
    page.wait_for_timeout(3000)
    shift, shifted = max(page.evaluate("window.shifts"), default=(0.0, ""))
    page.context.close()
    return Opened(paint, verdict, answers, done, shift, shifted)


def main() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    bare = subprocess.Popen([sys.executable, "-c", BARE, port], stdout=subprocess.PIPE, text=True)
    assert bare.stdout is not None
    try:
        bare.stdout.readline()
        nothing = f"http://127.0.0.1:{port}/"
        with served(many=False) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            visits, empty = [], []
            for _ in range(ROUNDS):
                page, paint = opened(browser, nothing)
                page.context.close()
                empty.append(paint)
                visits.append(visit(browser, address))
            browser.close()
    finally:
        bare.kill()
        bare.wait()
    few, many = moves(many=False), moves(many=True)
    worst = max(visits, key=lambda each: each.shift)
    paints = statistics.median(each.paint for each in visits)
    rows = [
        ("first paint with content", f"{paints:.2f} s", f"{statistics.median(empty):.2f} s", "1.5 s"),
        ("the three answers of the verdict", f"{statistics.median(v.verdict for v in visits):.2f} s", "", ""),
        ("two answers side by side, one click", f"{statistics.median(v.answers for v in visits):.1f} s", "", "60 s"),
        ("compressed, asked and measured", f"{statistics.median(v.done for v in visits):.1f} s", "", ""),
        ("largest shift of layout", f"{worst.shift:.3f} ({worst.shifted.strip() or 'nothing'})", "", "0.05"),
        ("a moved control, 211 weights, 95th percentile", f"{few['seconds'] * 1e3:.0f} ms", "", "150 ms"),
        ("a moved control, 9,890 weights, 95th percentile", f"{many['seconds'] * 1e3:.0f} ms", "", "300 ms"),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    told = f"""# What somebody who opens the page waits for

`make bench-page`, {machine()}. Medians of {ROUNDS} visits with an empty cache, the worst
shift of all; the built-in model, the preset that is picked at first.
Beside it a Gradio page with nothing but a heading, opened by turns.

| | ours | an empty Gradio page | must |
| --- | --- | --- | --- |
{table}
"""
    FILE.write_text(told)
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
