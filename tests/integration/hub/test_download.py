"""The Hub's module with the real client: what is downloaded, and what is here already."""

import errno
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from studio.base.errors import HubError, ResourceError
from studio.base.progress import Progress
from studio.checkpoint import hub
from studio.checkpoint.file_names import WEIGHTS
from tests.hub_server import LocalHub
from tests.small_repository import REPO, UNWANTED, sharded
from tests.steps import heard


def fetched(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class TestDownload:
    @pytest.mark.parametrize("shards", [False, True], ids=["single", "sharded"])
    def test_fetches_what_was_counted(self, shards: bool, server: LocalHub, folder: Path) -> None:
        server.add(REPO, sharded(folder) if shards else folder)
        server.bytes_per_second = 8e6
        repository = hub.inspect(REPO)
        seen, path = heard(hub.download(repository))
        assert fetched(path) == set(repository.files)
        assert all((path / name).read_bytes() == (folder / name).read_bytes() for name in repository.files)
        done = [progress.done for progress in seen]
        assert done == sorted(done)
        assert len(set(done)) >= 3, "it moves"
        assert seen[-1] == Progress.of_bytes("download", repository.download_bytes, repository.download_bytes)
        assert {progress.total for progress in seen} == {repository.download_bytes}

    def test_never_asks_for_code_pickles_or_adapters(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        heard(hub.download(hub.inspect(REPO)))
        assert not [request.path for request in server.requests if request.path.endswith(UNWANTED[:6])]
        assert not [request.path for request in server.requests if "/original/" in request.path]

    def test_what_is_here_costs_nothing(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        repository = hub.inspect(REPO)
        _, first = heard(hub.download(repository))
        server.requests.clear()
        seen, second = heard(hub.download(repository))
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
        large = {repository.digests[WEIGHTS]: repository.files[WEIGHTS]}
        assert 0 < hub.fetched_bytes(REPO, large) < repository.files[WEIGHTS]
        sent = server.sent(WEIGHTS)
        assert sent < repository.files[WEIGHTS]
        assert not list(cache.rglob("*.incomplete"))
        kept = sum(size for name, size in repository.files.items() if name != WEIGHTS)
        server.bytes_per_second = float("inf")
        seen, path = heard(hub.download(repository))
        assert seen[0].done >= kept - 1_000, "small files were kept"
        assert (path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
        assert hub.fetched_bytes(REPO, large) == repository.files[WEIGHTS]
        assert hub.fetched_bytes(REPO, {"0" * 64: 7}) == 0

    def test_a_disk_too_small(self, server: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server.add(REPO, folder)
        repository = hub.inspect(REPO)
        server.requests.clear()
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 4_500_000))
        with pytest.raises(ResourceError, match=r"needs 6 MB, but only 4\.5 MB"):
            heard(hub.download(repository))
        assert server.requests == []

    def test_a_disk_that_fills_up(self, server: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server.add(REPO, folder)
        repository = hub.inspect(REPO)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("huggingface_hub.file_download._chmod_and_move", full)
        with pytest.raises(ResourceError, match="is full"):
            heard(hub.download(repository))

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
            heard(hub.download(repository))


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
        _, path = heard(hub.download(repository))
        server.requests.clear()
        assert hub.local_snapshot(REPO) == (repository.sha, path)
        assert server.requests == []

    @pytest.mark.parametrize("lost", ["tokenizer.json", "model-00002-of-00002.safetensors", "config.json"])
    def test_a_copy_that_lacks_a_file(self, lost: str, server: LocalHub, folder: Path) -> None:
        server.add(REPO, sharded(folder))
        _, path = heard(hub.download(hub.inspect(REPO)))
        (path / lost).unlink()
        assert hub.local_snapshot(REPO) is None

    def test_the_newest_of_two(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        heard(hub.download(hub.inspect(REPO)))
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "new": True}))
        model = server.add(REPO, folder)
        heard(hub.download(hub.inspect(REPO)))
        found = hub.local_snapshot(REPO)
        assert found is not None
        assert found[0] == model.sha

    def test_a_copy_that_another_program_fetched(self, server: LocalHub, folder: Path, cache: Path) -> None:
        server.add(REPO, folder)
        for name in (WEIGHTS, "config.json", "tokenizer.json"):
            assert hub.local_snapshot(REPO) is None
            huggingface_hub.hf_hub_download(REPO, name, cache_dir=cache, endpoint=server.url)
        assert hub.local_snapshot(REPO) is not None
