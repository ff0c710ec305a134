"""The Hub's module with the real client, against a real server on this machine."""

import errno
import json
import shutil
import socket
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import save_file

from studio.base.errors import CheckpointError, HubError, ModelError, ResourceError
from studio.base.progress import Progress
from studio.checkpoint import hub
from studio.checkpoint.file_names import CONFIG, WEIGHTS
from studio.checkpoint.json_file import MAX_BYTES
from tests.hub_server import LocalHub

REPO = "owner/small"
FEW_BYTES = 2_000
"""More than any header here, far less than any weight."""


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


UNWANTED = (
    "tokenizer.py",
    "vocab.bin",
    "pytorch_model.bin",
    "adapter_config.json",
    "adapter_model.safetensors",
    "consolidated.safetensors",
    "original/model.safetensors",
    "README.md",
)


def weight(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((1500, 1000)).astype(np.float16)


def sharded(folder: Path) -> Path:
    """Turn the model into two shards and their index."""
    (folder / WEIGHTS).unlink()
    names = {"embed": "model-00001-of-00002.safetensors", "head": "model-00002-of-00002.safetensors"}
    for seed, (tensor, name) in enumerate(names.items()):
        save_file({tensor: weight(seed)}, folder / name)
    (folder / hub.INDEX).write_text(json.dumps({"weight_map": names}))
    return folder


def write_header(path: Path, claims: dict[str, Any], data_bytes: int) -> None:
    header = json.dumps(claims).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(data_bytes))


def finish(download: Generator[Progress, None, Path]) -> tuple[list[Progress], Path]:
    seen = []
    try:
        while True:
            seen.append(next(download))
    except StopIteration as finished:
        return seen, finished.value


def fetched(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


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


class TestInspect:
    def test_reads_headers_and_no_weights(self, server: LocalHub, folder: Path) -> None:
        model = server.add(REPO, folder)
        repository = hub.inspect(REPO)
        assert (repository.repo, repository.sha) == (REPO, model.sha)
        assert repository.config == {"model_type": "llama"}
        assert {name: (entry.file, entry.dtype, entry.shape) for name, entry in repository.entries.items()} == {
            "embed": (WEIGHTS, "F16", (1500, 1000)),
            "head": (WEIGHTS, "F16", (1500, 1000)),
        }
        asked = [request for request in server.requests if request.path.endswith(WEIGHTS)]
        assert all(request.range for request in asked)
        assert server.sent(WEIGHTS) <= hub.FIRST_READ_BYTES

    def test_reads_a_long_header_in_two_requests(self, server: LocalHub, folder: Path) -> None:
        tensors = {f"a.tensor.with.a.long.name.{i}": np.zeros((1, 500), np.float16) for i in range(2000)}
        save_file(tensors, folder / WEIGHTS)
        server.add(REPO, folder)
        assert hub.inspect(REPO).entries.keys() == tensors.keys()
        header = int.from_bytes((folder / WEIGHTS).read_bytes()[:8], "little")
        assert server.sent(WEIGHTS) == 8 + header > hub.FIRST_READ_BYTES

    def test_counts_exactly_what_a_download_fetches(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        repository = hub.inspect(REPO)
        names = {WEIGHTS, "config.json", "tokenizer.json", "chat_template.jinja", "vocab[1].txt"}
        assert repository.files == {name: (folder / name).stat().st_size for name in names}
        assert repository.download_bytes == sum(repository.files.values())

    def test_takes_the_shards_of_the_index_and_nothing_else(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, sharded(folder))
        repository = hub.inspect(REPO)
        shards = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
        assert {entry.file for entry in repository.entries.values()} == shards
        assert {name for name in repository.files if name.endswith(".safetensors")} == shards

    def test_at_a_commit(self, server: LocalHub, folder: Path) -> None:
        model = server.add(REPO, folder)
        assert hub.inspect(REPO, model.sha).sha == model.sha

    def test_a_missing_repository(self, server: LocalHub) -> None:
        with pytest.raises(ModelError, match="no model “owner/none”"):
            hub.inspect("owner/none")

    def test_a_missing_commit(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        with pytest.raises(ModelError, match="no model"):
            hub.inspect(REPO, "0" * 40)

    def test_a_path_is_never_asked_for(self, server: LocalHub) -> None:
        with pytest.raises(ModelError, match="no model"):
            hub.inspect("../../etc/passwd")
        assert server.requests == []

    def test_a_gated_repository(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder, gated=True)
        with pytest.raises(ModelError, match="accept their terms"):
            hub.inspect(REPO)

    def test_a_repository_without_safetensors(self, server: LocalHub, folder: Path) -> None:
        """An adapter and a variant remain; that the adapter's config is no JSON is not what is wrong."""
        (folder / WEIGHTS).unlink()
        server.add(REPO, folder)
        with pytest.raises(ModelError, match="only an adapter") as caught:
            hub.inspect(REPO)
        assert (caught.value.key, caught.value.values["base"]) == ("adapter_only", "?")

    @pytest.mark.parametrize(
        ("left", "key"),
        [
            ({"consolidated.safetensors", "pytorch_model.bin"}, "no_index"),
            ({"pytorch_model.bin"}, "only_pickles"),
            (set(), "no_safetensors"),
        ],
        ids=["a-variant", "a-pickle", "nothing"],
    )
    def test_why_a_repository_has_no_weights(self, left: set[str], key: str, server: LocalHub, folder: Path) -> None:
        for name in {WEIGHTS, *UNWANTED} - left - {"README.md"}:
            (folder / name).unlink()
        server.add(REPO, folder)
        with pytest.raises(ModelError) as caught:
            hub.inspect(REPO)
        assert caught.value.key == key

    def test_a_repository_of_an_export(self, server: LocalHub, folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / hub.PACKED)
        server.add(REPO, folder)
        with pytest.raises(ModelError, match="compressed already"):
            hub.inspect(REPO)

    @pytest.mark.parametrize(("said", "license"), [({"license": "gemma"}, "gemma"), ({"license": 7}, ""), ({}, "")])
    def test_the_license_is_what_the_card_says(
        self, server: LocalHub, folder: Path, said: dict[str, Any], license: str
    ) -> None:
        server.add(REPO, folder, card=said)
        assert hub.inspect(REPO).license.id == license

    def test_a_repository_without_config(self, server: LocalHub, folder: Path) -> None:
        (folder / "config.json").unlink()
        server.add(REPO, folder)
        with pytest.raises(ModelError, match=r"no config\.json"):
            hub.inspect(REPO)

    @pytest.mark.usefixtures("closed_port")
    def test_nobody_answers(self) -> None:
        with pytest.raises(HubError, match="does not answer"):
            hub.inspect(REPO)

    def test_an_error_is_named(self, server: LocalHub) -> None:
        server.status = 503
        with pytest.raises(HubError, match="HTTP 503"):
            hub.inspect(REPO)

    @pytest.mark.parametrize(
        "content", [b"not json", b"[1]", b"[" * 100_000, b" " * (MAX_BYTES[CONFIG] + 1)], ids=lambda c: str(c[:4])
    )
    def test_a_config_that_is_none(self, content: bytes, server: LocalHub, folder: Path) -> None:
        (folder / "config.json").write_bytes(content)
        server.add(REPO, folder)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            hub.inspect(REPO)
        if len(content) > MAX_BYTES[CONFIG]:
            assert server.sent("config.json") == 0

    @pytest.mark.parametrize(
        "claim",
        [
            {"dtype": "F16", "shape": [1000, 1000], "data_offsets": [0, 2000]},
            {"dtype": "F16", "shape": [-1000, -1], "data_offsets": [0, 2000]},
            {"dtype": "F16", "shape": [999], "data_offsets": [2, 2000]},
            {"dtype": "F16", "shape": [500], "data_offsets": [0, 1000]},
            {"dtype": "F16", "shape": [True, 1000], "data_offsets": [0, 2000]},
            # Multiplied before it is looked at, this shape is a text of 80 GB.
            {"dtype": "F16", "shape": ["xxxxxxxx", 10**10], "data_offsets": [0, 2000]},
            {"dtype": "F16", "shape": [1] * 8 + [1000], "data_offsets": [0, 2000]},
            {"dtype": "F16", "shape": [1000]},
            ["F16"],
        ],
        ids=["too-large", "negative", "gap", "rest", "bool", "text", "axes", "no-offsets", "list"],
    )
    def test_a_header_that_lies(self, claim: Any, server: LocalHub, folder: Path) -> None:
        write_header(folder / WEIGHTS, {"embed": claim}, 2000)
        server.add(REPO, folder)
        with pytest.raises(CheckpointError, match=WEIGHTS):
            hub.inspect(REPO)

    @pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 8 + b"{}", b"\2" + bytes(7) + b"[]"])
    def test_a_file_without_header(self, content: bytes, server: LocalHub, folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(content)
        server.add(REPO, folder)
        with pytest.raises(CheckpointError, match=WEIGHTS):
            hub.inspect(REPO)

    @pytest.mark.parametrize(
        ("weight_map", "key", "named"),
        [
            ({}, "index_without_map", hub.INDEX),
            ([], "index_without_map", hub.INDEX),
            ({"embed": "nowhere.safetensors"}, "missing_file", "nowhere.safetensors"),
            ({"embed": "../x.safetensors"}, "bad_index", hub.INDEX),
            ({"embed": 1}, "bad_index", hub.INDEX),
            ({"embed": "README.md"}, "bad_index", hub.INDEX),
        ],
        ids=str,
    )
    def test_an_index_that_lies(self, weight_map: Any, key: str, named: str, server: LocalHub, folder: Path) -> None:
        (sharded(folder) / hub.INDEX).write_text(json.dumps({"weight_map": weight_map}))
        server.add(REPO, folder)
        with pytest.raises(CheckpointError) as caught:
            hub.inspect(REPO)
        assert (caught.value.key, caught.value.values["file"]) == (key, named)

    def test_one_tensor_in_two_shards(self, server: LocalHub, folder: Path) -> None:
        save_file({"embed": weight(0)}, sharded(folder) / "model-00002-of-00002.safetensors")
        server.add(REPO, folder)
        with pytest.raises(CheckpointError) as caught:
            hub.inspect(REPO)
        assert (caught.value.key, caught.value.values["tensor"]) == ("tensor_twice", "embed")


class TestDownload:
    @pytest.mark.parametrize("shards", [False, True], ids=["single", "sharded"])
    def test_fetches_what_was_counted(self, shards: bool, server: LocalHub, folder: Path) -> None:
        server.add(REPO, sharded(folder) if shards else folder)
        server.bytes_per_second = 8e6
        repository = hub.inspect(REPO)
        seen, path = finish(hub.download(repository))
        assert fetched(path) == set(repository.files)
        assert all((path / name).read_bytes() == (folder / name).read_bytes() for name in repository.files)
        done = [progress.done for progress in seen]
        assert done == sorted(done)
        assert len(set(done)) >= 3, "it moves"
        assert seen[-1] == Progress.of_bytes("download", repository.download_bytes, repository.download_bytes)
        assert {progress.total for progress in seen} == {repository.download_bytes}

    def test_never_asks_for_code_pickles_or_adapters(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        finish(hub.download(hub.inspect(REPO)))
        assert not [request.path for request in server.requests if request.path.endswith(UNWANTED[:6])]
        assert not [request.path for request in server.requests if "/original/" in request.path]

    def test_what_is_here_costs_nothing(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        repository = hub.inspect(REPO)
        _, first = finish(hub.download(repository))
        server.requests.clear()
        seen, second = finish(hub.download(repository))
        assert first == second
        assert seen == [Progress.of_bytes("download", repository.download_bytes, repository.download_bytes)]
        assert server.requests == []

    def test_closing_stops_it_and_a_later_one_completes(
        self, server: LocalHub, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.add(REPO, folder)
        repository = hub.inspect(REPO)
        server.requests.clear()
        server.bytes_per_second = 1e6
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
        download = hub.download(repository)
        while next(download).done < 1_000_000:
            pass
        download.close()
        sent = server.sent(WEIGHTS)
        assert sent < repository.files[WEIGHTS]
        assert not list(cache.rglob("*.incomplete"))
        kept = sum(size for name, size in repository.files.items() if name != WEIGHTS)
        server.bytes_per_second = float("inf")
        seen, path = finish(hub.download(repository))
        assert seen[0].done >= kept - 1_000, "small files were kept"
        assert (path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()

    def test_a_disk_too_small(self, server: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server.add(REPO, folder)
        repository = hub.inspect(REPO)
        server.requests.clear()
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 4_500_000))
        with pytest.raises(ResourceError, match=r"needs 6 MB, but only 4\.5 MB"):
            finish(hub.download(repository))
        assert server.requests == []

    def test_a_disk_that_fills_up(self, server: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server.add(REPO, folder)
        repository = hub.inspect(REPO)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("huggingface_hub.file_download._chmod_and_move", full)
        with pytest.raises(ResourceError, match="is full"):
            finish(hub.download(repository))

    def test_a_cache_that_is_read_only(self, server: LocalHub, folder: Path, cache: Path) -> None:
        server.add(REPO, folder)
        cache.write_text("a file where a folder should be")
        with pytest.raises(ResourceError, match="cannot be written to"):
            hub.inspect(REPO)

    def test_a_hub_that_refuses_after_the_inspection(self, server: LocalHub, folder: Path) -> None:
        """The client returns the folder with nothing but config.json, as if all were well."""
        server.add(REPO, folder)
        repository = hub.inspect(REPO)
        server.status = 403
        with pytest.raises(HubError):
            finish(hub.download(repository))


class TestLocalSnapshot:
    def test_nothing_here(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        assert hub.local_snapshot(REPO) is None
        hub.inspect(REPO)
        assert hub.local_snapshot(REPO) is None, "a config alone is no model"
        assert hub.local_snapshot("../../etc") is None

    @pytest.mark.parametrize("shards", [False, True], ids=["single", "sharded"])
    def test_a_model_fetched_before(self, shards: bool, server: LocalHub, folder: Path) -> None:
        server.add(REPO, sharded(folder) if shards else folder)
        repository = hub.inspect(REPO)
        _, path = finish(hub.download(repository))
        server.requests.clear()
        assert hub.local_snapshot(REPO) == (repository.sha, path)
        assert server.requests == []

    @pytest.mark.parametrize("lost", ["tokenizer.json", "model-00002-of-00002.safetensors", "config.json"])
    def test_a_copy_that_lacks_a_file(self, lost: str, server: LocalHub, folder: Path) -> None:
        server.add(REPO, sharded(folder))
        _, path = finish(hub.download(hub.inspect(REPO)))
        (path / lost).unlink()
        assert hub.local_snapshot(REPO) is None

    def test_the_newest_of_two(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        finish(hub.download(hub.inspect(REPO)))
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "new": True}))
        model = server.add(REPO, folder)
        finish(hub.download(hub.inspect(REPO)))
        found = hub.local_snapshot(REPO)
        assert found is not None
        assert found[0] == model.sha

    def test_a_copy_that_another_program_fetched(self, server: LocalHub, folder: Path, cache: Path) -> None:
        server.add(REPO, folder)
        for name in (WEIGHTS, "config.json", "tokenizer.json"):
            assert hub.local_snapshot(REPO) is None
            huggingface_hub.hf_hub_download(REPO, name, cache_dir=cache, endpoint=server.url)
        assert hub.local_snapshot(REPO) is not None
