"""Two processes, one cache, one model: it is fetched once, both have it, and neither's is removed by a full budget."""

import hashlib
from pathlib import Path

import pytest

from studio.base.cache import Entry, entries
from studio.base.cache_budget import make_room
from studio.base.settings import settings
from tests.conftest import COMPILED, TEMPLATE, save_tiny_model
from tests.hub_server import LocalHub
from tests.terminal import PATIENCE, start

REPO = "owner/shared"


def downloads() -> list[Entry]:
    return [entry for entry in entries() if entry.kind == "downloads"]


def test_two_processes_fetch_one_model_once_and_make_the_same_of_it(
    server: LocalHub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_model("llama", tmp_path / "llama", hidden_size=256, intermediate_size=1024, head_dim=64)
    (tmp_path / "llama" / "chat_template.jinja").write_text(TEMPLATE)
    server.add(REPO, tmp_path / "llama")
    server.bytes_per_second = 4e6  # so that both are at it
    own = tmp_path / "own"
    own.mkdir()
    COMPILED.mkdir(parents=True, exist_ok=True)
    (own / "native").symlink_to(COMPILED)
    shared = {"STUDIO_CACHE_DIR": str(own), "HF_HUB_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    running = [start("compress", REPO, "--out", tmp_path / f"out-{i}", "--json", **shared) for i in range(2)]
    for process in running:
        said, notes = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said + notes
    assert server.sent("model.safetensors") < 1.5 * (tmp_path / "llama" / "model.safetensors").stat().st_size
    made = [tmp_path / f"out-{i}" / "weights.studio" for i in range(2)]
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in made}) == 1
    assert list(cache.rglob("*.studio-partial")) == []

    monkeypatch.setenv("STUDIO_CACHE_DIR", str(own))
    settings.cache_clear()
    monkeypatch.setattr("studio.base.leases.FRESH_SECONDS", 0.0)
    try:
        [kept] = downloads()
        chatting = start("chat", REPO, "--prompt", "one", "--max-new-tokens", "100000", "--json", **shared)
        try:
            while not kept.is_in_use:
                assert chatting.poll() is None, chatting.communicate()
            make_room(keep=0)
            assert [entry.name for entry in downloads()] == [kept.name]
        finally:
            chatting.kill()
            chatting.communicate()
        make_room(keep=0)
        assert downloads() == []
    finally:
        settings.cache_clear()
