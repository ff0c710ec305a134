"""A compressed model answers in a visitor's own Chromium, by files of the pinned checksums.

The mirror is the tests' own copy of what npm gives, so that a checksum that is not npm's fails here.
"""

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Route, expect

from tests.browser.conftest import Own
from tests.conftest import save_tiny_model
from tests.engines import installed
from tests.walking import compress

PATIENCE = 240_000
"""Milliseconds."""
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


def test_it_answers_on_the_visitor_s_processor(chromium: Any, own: Own, tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "tiny", hidden_size=128, intermediate_size=256)
    packages = installed.transformers_js() / "node_modules"
    fetched: list[str] = []

    def mirror(route: Route) -> None:
        file = packages / re.sub(r"@\d[^/]*/", "/", route.request.url.partition("/npm/")[2], count=1)
        fetched.append(file.name)
        assert "referer" not in route.request.headers
        route.fulfill(path=file, content_type=TYPES[file.suffix], headers={"Access-Control-Allow-Origin": "*"})

    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    try:
        page = context.new_page()
        page.route("https://cdn.jsdelivr.net/npm/**", mirror)
        page.goto(f"{own.opening(tmp_path / 'tiny')}&group-size=32")
        expect(page.locator("#reads .reads")).to_be_visible()
        compress(page)
        page.locator("#in-browser-panel button.label-wrap").click()
        page.locator("#in-browser").click()
        answer = page.locator("#in-browser-answer")
        expect(answer).to_have_attribute("data-done", "1", timeout=PATIENCE)
        assert answer.inner_text().strip()
        page.locator("#in-browser").click()  # all is there by now
        expect(answer).to_have_attribute("data-done", "2", timeout=PATIENCE)
        assert sorted(fetched) == sorted(
            ["transformers.min.js", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"]
        )
    finally:
        context.close()
