"""A download through whatever the Hub, or the way to it, does: the file that is kept in the end is the right one."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from studio.base.errors import HubError, ModelError, ResourceError
from studio.checkpoint import hub, hub_blobs, hub_client
from studio.checkpoint.file_names import WEIGHTS
from tests.full_disk import largest_file
from tests.hub_server import Fault, LocalHub
from tests.small_repository import REPO
from tests.steps import heard


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_blobs, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(hub_client, "WAITS", (0.01, 0.01))


@pytest.fixture
def repository(server: LocalHub, folder: Path) -> hub.Repository:
    server.add(REPO, folder)
    return hub.inspect(REPO)


def left(cache: Path) -> list[Path]:
    """Return whatever of the weights is in the cache."""
    return [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 1_000_000]


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("cut")],
        [Fault("cut"), Fault("cut"), Fault("cut")],
        [Fault("status", 500), Fault("status", 503)],
        [Fault("status", 429, {"Retry-After": "0"})],
        [Fault("status", 429, {"RateLimit": '"api";r=0;t=0'}), Fault("cut")],
        [Fault("cut"), Fault("whole")],
        [Fault("cut"), Fault("status", 502), Fault("cut"), Fault("whole")],
    ],
    ids=lambda faults: "-".join(f"{fault.kind}{fault.status if fault.kind == 'status' else ''}" for fault in faults),
)
def test_what_passes_is_waited_out(
    server: LocalHub, folder: Path, repository: hub.Repository, faults: list[Fault]
) -> None:
    server.ordered = list(faults)
    _, path = heard(hub.download(repository))
    assert server.ordered == []
    assert (path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_a_cut_file_is_taken_up_where_it_broke_off(server: LocalHub, repository: hub.Repository) -> None:
    server.ordered = [Fault("cut")]
    before = server.sent(WEIGHTS)
    heard(hub.download(repository))
    assert server.sent(WEIGHTS) - before == repository.files[WEIGHTS], "not a byte twice"


def test_a_cancelled_file_is_taken_up_where_it_stopped(
    server: LocalHub, folder: Path, repository: hub.Repository
) -> None:
    server.bytes_per_second = 4e6
    download = hub.download(repository)
    while next(download).done < 2_000_000:
        pass
    download.close()
    server.bytes_per_second = float("inf")
    server.requests.clear()
    seen, path = heard(hub.download(repository))
    assert seen[-1].done == seen[-1].total
    assert server.sent(WEIGHTS) < repository.files[WEIGHTS] - 1_500_000
    assert (path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_patience_is_said_and_kept(server: LocalHub, repository: hub.Repository) -> None:
    server.ordered = [Fault("status", 429, {"Retry-After": "1"})]
    began = time.monotonic()
    seen, _ = heard(hub.download(repository))
    assert time.monotonic() - began >= 1
    waits = [progress for progress in seen if progress.stage == "download_waits"]
    assert waits
    assert {progress.detail for progress in waits} <= {"0:00", "0:01"}


@pytest.mark.parametrize("kind", ["flipped", "longer"])
def test_a_wrong_file_is_removed_and_said(
    server: LocalHub, folder: Path, repository: hub.Repository, cache: Path, kind: str
) -> None:
    server.ordered = [Fault(kind)]  # type: ignore[arg-type]
    with pytest.raises(HubError, match="otherwise than the Hub's own listing says") as caught:
        heard(hub.download(repository))
    assert caught.value.key == "hub_wrong_file"
    assert left(cache) == []
    _, path = heard(hub.download(repository))
    assert (path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_a_partial_file_that_was_changed_is_found_out(
    server: LocalHub, folder: Path, repository: hub.Repository, cache: Path
) -> None:
    blobs = cache / "models--owner--small" / "blobs"
    partial = blobs / f"{repository.digests[WEIGHTS]}.studio-partial"
    partial.write_bytes(bytes(1_000_000))
    with pytest.raises(HubError):
        heard(hub.download(repository))
    assert not partial.exists()
    partial.write_bytes(bytes(10_000_000))  # longer than the file
    _, path = heard(hub.download(repository))
    assert (path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_a_file_that_the_listing_says_is_longer(server: LocalHub, repository: hub.Repository, cache: Path) -> None:
    files = repository.files | {WEIGHTS: repository.files[WEIGHTS] + 10}
    with pytest.raises(HubError):
        heard(hub.download(replace(repository, files=files)))
    assert left(cache) == []


@pytest.mark.parametrize("status", [500, 429])
def test_a_hub_that_stays_so_is_a_sentence(server: LocalHub, repository: hub.Repository, status: int) -> None:
    server.ordered = [Fault("status", status, {"Retry-After": "0"})] * hub_blobs.TRIES
    with pytest.raises(HubError) as caught:
        heard(hub.download(repository))
    assert caught.value.key == ("hub_patience" if status == 429 else "hub_failed")


def test_a_hub_that_asks_for_patience_before_anything_is_a_sentence(server: LocalHub, folder: Path) -> None:
    server.add(REPO, folder)
    server.status = 429
    with pytest.raises(HubError, match="asks for patience") as caught:
        hub.inspect(REPO)
    assert caught.value.key == "hub_patience"


def test_a_login_never_follows_to_another_host(server: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.elsewhere = True
    server.add(REPO, folder)
    _, path = heard(hub.download(hub.inspect(REPO)))
    assert (path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    asked = [request for request in server.requests if request.path.startswith("/stored/")]
    assert asked
    assert {request.authorization for request in asked} == {None}
    assert "Bearer hf_secret" in {request.authorization for request in server.requests}


def test_a_private_model_needs_the_right_login(server: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add(REPO, folder)
    server.private[REPO] = "hf_mine"
    with pytest.raises(ModelError) as caught:
        hub.inspect(REPO)
    assert caught.value.key == "model_not_found"
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    _, path = heard(hub.download(hub.inspect(REPO)))
    assert (path / WEIGHTS).is_file()


def test_a_pinned_commit_is_fetched_though_there_is_a_newer_one(server: LocalHub, folder: Path) -> None:
    server.add(REPO, folder)
    pinned = hub.inspect(REPO)
    with pytest.raises(ModelError):
        hub.inspect(REPO, "0" * 40)
    _, path = heard(hub.download(hub.inspect(REPO, pinned.sha)))
    assert path.name == pinned.sha
    assert hub.local_snapshot(REPO, pinned.sha) == (pinned.sha, path)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(repository: hub.Repository, cache: Path) -> None:
    with largest_file(2_000_000), pytest.raises(ResourceError) as caught:
        heard(hub.download(repository))
    assert caught.value.key in ("disk_full", "disk_unwritable")
    assert left(cache) == []


def test_two_downloads_of_one_model_fetch_it_once(server: LocalHub, repository: hub.Repository) -> None:
    server.bytes_per_second = 8e6
    before = server.sent(WEIGHTS)
    first, second = hub.download(repository), hub.download(repository)
    next(first)
    next(second)
    (_, path), (_, same) = heard(first), heard(second)
    assert path == same
    assert server.sent(WEIGHTS) - before == repository.files[WEIGHTS]
