"""A model that was fetched works when the Hub is gone, and stays in the cache as long as somebody has it open."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.base import cache
from studio.base.cache_budget import make_room
from studio.checkpoint import hub
from studio.checkpoint.open_model import fetch, open_model
from studio.session.session import Session
from studio.session.shared import Shared
from tests.hub_server import LocalHub
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache", "here")
REPO = "owner/tiny"


def test_what_was_fetched_is_opened_and_compressed_without_a_hub(
    server: LocalHub, tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.add(REPO, tiny_model("llama"))
    there = finish(fetch(finish(open_model(REPO, paths=False))))
    assert there.folder is not None
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.5)
    hub._probed.clear()
    server.requests.clear()
    session = Session(Shared(), workspace=tmp_path / "workspace")
    opened = finish(session.open(REPO))
    assert (opened.folder, opened.revision) == (there.folder, there.revision)
    finish(session.compress())
    assert session.copy.is_holding
    assert server.requests == []
    session.close()


def test_an_open_model_stays_whatever_the_budget_says(server: LocalHub, tiny_model: Callable[[str], Path]) -> None:
    server.add(REPO, tiny_model("llama"))
    checkpoint = finish(fetch(finish(open_model(REPO, paths=False))))
    assert checkpoint.folder is not None
    [entry] = [each for each in cache.entries() if each.kind == cache.DOWNLOADS]
    assert entry.name == REPO
    assert entry.nbytes >= sum(file.stat().st_size for file in tiny_model("llama").glob("*.safetensors"))
    folder = checkpoint.folder
    assert make_room(keep=0) == []
    assert folder.is_dir()
    del checkpoint
    gc.collect()
    assert [gone.name for gone in make_room(keep=0)] == [REPO]
    assert not folder.exists()
    assert [each for each in cache.entries() if each.kind == cache.DOWNLOADS] == []
