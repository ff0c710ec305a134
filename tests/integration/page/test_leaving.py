"""Whoever leaves gives back what they held: with a real server, and a visitor who speaks to it as a page does."""

import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import COMPILED, PREPARED, TEMPLATE, save_tiny_model, served
from tests.soak import Findings, Visitor

WAITS = {"STUDIO_STOP_AFTER": "0.5", "STUDIO_FREE_AFTER": "1", "STUDIO_LOCAL_FILES": "1"}
PATIENCE = 120
"""Seconds; every one of these ends as soon as it is so."""


class Page:
    """A server with a cache of its own, and a tiny model that never ends an answer."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.cache, self.model = address, folder / "cache", str(folder / "endless")
        self.findings = Findings()

    def visitor(self) -> Visitor:
        return Visitor(self.address, [self.model], self.findings, 1)

    def files(self) -> list[Path]:
        """Return the files of all sessions, and of all exports."""
        places = (self.cache / "sessions", self.cache.parent / "gradio")
        return [Path(folder) / name for place in places for folder, _, names in os.walk(place) for name in names]

    def workers(self) -> set[int]:
        """Return the processes below the one that forks them."""
        [server] = [  # browser tests may have servers of their own
            each
            for each in psutil.Process().children()
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE and self._is_mine(each)
        ]
        return {each.pid for child in server.children() for each in child.children(recursive=True)}

    def _is_mine(self, process: psutil.Process) -> bool:
        return process.environ().get("STUDIO_CACHE_DIR") == str(self.cache)

    def standing(self, visitor: Visitor) -> dict[str, bool]:
        """Ask as the visitor's own browser does: others are not told."""
        url, headers = f"{self.address}presence/{visitor.key}", {"Cookie": visitor.cookie}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE) as answer:
            said: dict[str, bool] = json.load(answer)
        return said


@pytest.fixture(scope="module")
def page(builtin: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "cache").mkdir()
    for shared in (COMPILED, PREPARED):
        shared.mkdir(parents=True, exist_ok=True)
        (folder / "cache" / shared.name).symlink_to(shared)
    save_tiny_model("llama", folder / "endless", max_position_embeddings=1 << 20, eos_token_id=None, head_dim=32)
    (folder / "endless" / "chat_template.jinja").write_text(TEMPLATE)
    with served(folder, STUDIO_CACHE_DIR=str(folder / "cache"), **WAITS) as address:
        yield Page(address, folder)


def until(true: Callable[[], object]) -> None:
    ends = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.1)


def test_who_leaves_gives_back_files_and_models(page: Page) -> None:
    visitor = page.visitor()
    visitor.call("open_model", page.model)
    visitor.call("queue_compress")
    visitor.call("compress")
    visitor.call("talk", "Hello", "", 16, 8, 0.0, 1.0, 0, 1.0, 0)
    visitor.call("export")
    assert {file.suffix for file in page.files()} >= {".studio", ".gguf"}
    assert page.workers()
    time.sleep(3)  # longer than any of the waits: who is there loses nothing
    assert page.standing(visitor) == {"known": True, "connected": True, "gone": False}
    assert {file.suffix for file in page.files()} >= {".studio", ".gguf"}
    visitor.leave()
    until(lambda: not page.files())
    until(lambda: not page.workers())
    assert page.standing(visitor) == {"known": True, "connected": False, "gone": True}
    assert page.findings.faults == []


def test_an_answer_that_nobody_hears_ends(page: Page) -> None:
    visitor = page.visitor()
    visitor.call("open_model", page.model)
    visitor.call("queue_talk")
    talking = threading.Thread(target=visitor.call, args=("talk", "Hello", "", 16, 4096, 0.0, 1.0, 0, 1.0, 0))
    talking.start()
    until(page.workers)
    visitor.leave()
    until(lambda: not page.workers())
    talking.join(PATIENCE)
    after = page.visitor()  # its turn is free for whoever comes next
    after.call("open_model", page.model)
    after.call("queue_compress")
    after.call("compress")
    assert any(file.suffix == ".studio" for file in page.files())
    after.leave()
    until(lambda: not page.files())
    assert page.findings.faults == []


def test_a_second_visit_under_one_key_takes_the_place_of_the_first(page: Page) -> None:
    visitor = page.visitor()
    for _ in range(2):
        visitor.call("open_model", page.model)
        visitor.call("queue_compress")
        visitor.call("compress")
        assert sum(file.suffix == ".studio" for file in page.files()) == 1
        visitor.call("visit")
        assert not any(file.suffix == ".studio" for file in page.files())
    visitor.leave()
    until(lambda: not page.workers())
    assert page.findings.faults == []
