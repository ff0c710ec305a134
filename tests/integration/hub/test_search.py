"""The Hub's module with the real client, against a real server on this machine: searching, and who answers."""

import socket
import time
from pathlib import Path

import pytest

from studio.base.errors import HubError
from studio.checkpoint import hub
from tests.hub_server import LocalHub


class TestSearch:
    def test_finds_text_models_with_safetensors_most_used_first(self, server: LocalHub, folder: Path) -> None:
        only_pickle = folder.parent / "pickle"
        only_pickle.mkdir()
        (only_pickle / "pytorch_model.bin").write_bytes(b"never")
        (folder / "adapter_model.safetensors").unlink()
        (folder / "consolidated.safetensors").unlink()
        (folder / "original/model.safetensors").unlink()
        server.add("owner/small", folder, downloads=5)
        server.add("owner/Small-it", folder, downloads=9, gated=True)
        server.add("owner/small-pickle", only_pickle)
        server.add("owner/small-bert", folder, pipeline_tag="fill-mask")
        server.add("owner/other", folder)
        assert hub.search("small") == [
            hub.SearchResult("owner/Small-it", 3_000_000, 9, True),
            hub.SearchResult("owner/small", 3_000_000, 5, False),
        ]
        assert len(hub.search("small", limit=1)) == 1

    @pytest.mark.usefixtures("closed_port")
    def test_says_at_once_that_nobody_answers(self) -> None:
        start = time.monotonic()
        with pytest.raises(HubError, match="cannot be searched"):
            hub.search("small")
        assert time.monotonic() - start < 20  # the client itself tries for half a minute


class TestReachable:
    def test_a_server_that_answers(self, server: LocalHub) -> None:
        assert hub.reachable()
        assert hub.reachable()
        assert len(server.requests) == 1, "the answer is remembered"

    @pytest.mark.usefixtures("closed_port")
    def test_a_closed_port(self) -> None:
        assert not hub.reachable()

    def test_a_server_that_is_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
            monkeypatch.setattr(hub, "PROBE_SECONDS", 0.5)
            start = time.monotonic()
            assert not hub.reachable()
            assert time.monotonic() - start < 20

    @pytest.mark.parametrize("address", ["nonsense", "http://", "http://[", "http://a b:c"])
    def test_an_address_that_is_none(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert not hub.reachable()

    def test_a_client_told_to_stay_offline(self, server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert not hub.reachable()
