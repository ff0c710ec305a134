"""``python -m tests.bench.decode_memory MODEL_DIR``: the memory that a chat takes, as JSON.

Of the terminal: the most that the process held while the compressed model answered. Of the page: what the server holds
beyond its idle while the built-in model and its compressed copy stand in memory and answer, and the bytes of their
weights. Both are resident memory, files' pages included.
"""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.bench.compress_page import ROOT, SETTLED, served_by
from tests.chromium import chromium
from tests.walking import plain

PROMPT = "Name three planets and say one fact about each."
ANSWERED = "() => !document.querySelector('#send').disabled && document.querySelector('#compressed-stats').innerText"


def terminal(folder: Path) -> dict[str, int]:
    """Return the peak of one answer in a terminal, and the bytes of the weights that answered."""
    command = [sys.executable, "-W", "ignore", "-m", "studio", "chat", str(folder), "--prompt", PROMPT]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"peak": peak, "weights": sum(file.stat().st_size for file in folder.glob("*.safetensors"))}


def resident(process: int, what: str = "VmRSS") -> int:
    """Return the bytes of memory of a process, now or (``VmHWM``) at most."""
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def page() -> dict[str, int]:
    """Return what the server holds when idle, with both models after an answer, at most, and what the weights are."""
    with served_by("-m", "studio", "serve", "--port", "0") as (address, process), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1440, "height": 900}, locale="en-US")
        shown.goto(plain(address))
        shown.wait_for_function(SETTLED, timeout=60_000)
        shown.wait_for_timeout(2000)
        idle = resident(process)
        shown.locator("#compress").click()
        shown.locator("#progress .good").wait_for(timeout=120_000)
        for _ in range(2):
            ask(shown)
        found = {
            "idle": idle,
            "after": resident(process),
            "peak": resident(process, "VmHWM"),
            "weights": weights(shown),
        }
        browser.close()
    return found


def ask(shown: Page) -> None:
    shown.locator("#prompt textarea").fill(PROMPT)
    shown.locator("#send").click()
    shown.wait_for_timeout(1000)
    shown.wait_for_function(ANSWERED, timeout=120_000)


def weights(shown: Page) -> int:
    """Return the bytes of both models' weights as the page says them."""
    lines = (shown.locator(f"#{column}-stats").inner_text() for column in ("original", "compressed"))
    found = [re.search(r"weights\s+([\d.]+) MB", line) for line in lines]
    return sum(round(float(each[1]) * 1e6) for each in found if each is not None)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print(json.dumps({"terminal": terminal(Path(sys.argv[1])), "page": page()}))
