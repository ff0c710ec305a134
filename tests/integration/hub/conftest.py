"""An empty cache and a Hub on this machine, with a small model in it."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from safetensors.numpy import save_file

from studio.checkpoint import hub
from studio.checkpoint.file_names import WEIGHTS
from tests.hub_server import LocalHub
from tests.small_repository import UNWANTED, weight


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and a client without memory of earlier servers."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    hub._probed.clear()
    yield tmp_path / "cache"
    huggingface_hub.close_session()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of 6 MB, with company that must never be fetched."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"embed": weight(0), "head": weight(1)}, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "vocab[1].txt").write_text("a name that is a pattern")
    for name in UNWANTED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never")
    return folder
