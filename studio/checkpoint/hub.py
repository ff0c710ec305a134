"""The Hugging Face Hub: search, headers before weights, a download one can stop. Knows nothing of local checkpoints,
plans or pages.

What a repository says of itself is untrusted: sizes are bounded before a file is fetched, headers are checked before
they are believed, and only names of the repository's own listing are ever asked for.
"""

import glob
import shutil
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub as client
from huggingface_hub import constants, errors
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from studio.base import leases
from studio.base.cache import note_download
from studio.base.cache_budget import budget, make_room
from studio.base.errors import Cancelled, CheckpointError, HubError, ModelError, ResourceError
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.units import format_bytes
from studio.checkpoint.download_meter import Meter
from studio.checkpoint.file_names import CONFIG, INDEX, PACKED
from studio.checkpoint.headers import MAX_HEADER_BYTES, TensorEntry, parse_header
from studio.checkpoint.hub_blobs import Blob, Transfer, bytes_here, fetch_blob
from studio.checkpoint.hub_client import MODEL, HubRanges, cache, endpoint, explained, is_repo_id, listing, token
from studio.checkpoint.json_file import check_bytes, read_json
from studio.checkpoint.license import UNKNOWN, License
from studio.checkpoint.weight_files import joined, no_weights, weight_files

# Not by environment: gradio may have imported the client before us. Xet moves bytes outside Python, where no exception
# stops it; and the client's own chunks of 10 MB take a home line seconds to notice a cancel.
constants.HF_HUB_DISABLE_XET = True
constants.DOWNLOAD_CHUNK_SIZE = 1 << 20

ALLOW_PATTERNS = (
    INDEX, CONFIG, "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "*.jinja",
    "merges.txt", "vocab*", "chat_template.json",
)  # fmt: skip
"""What a download fetches beside the weight files that ``inspect`` found."""
IGNORE_PATTERNS = ("*.py", "*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.safetensors", "adapter_config.json")
"""What it never fetches: code, pickles, adapters, other variants of the weights."""

FIRST_READ_BYTES = 100_000  # most headers are shorter: one request per file
SOMEBODYS = ".studio-login"
"""Beside a model that was seen by a visitor's own login, and that not everybody may see."""
AT_ONCE = 4
"""Large files that are fetched together."""
PROBE_SECONDS, REMEMBER_SECONDS = 1.5, 60.0
REPORT_SECONDS, STOP_SECONDS = 0.2, 2.0


@dataclass(frozen=True)
class SearchResult:
    """One answer to a search; None where the Hub does not say."""

    repo: str
    parameters: int | None
    downloads: int | None
    gated: bool


@dataclass(frozen=True)
class Repository:
    """A model's repository at one commit, known by its headers; ``files`` is what a download fetches, in bytes."""

    repo: str
    sha: str
    config: dict[str, Any]
    entries: dict[str, TensorEntry]
    files: dict[str, int]
    license: License = UNKNOWN
    languages: tuple[str, ...] = ()
    """What its card says that it writes."""
    digests: dict[str, str] = field(default_factory=dict)
    """File -> SHA-256, of those that the Hub keeps as large ones."""
    login: str | None = field(default=None, repr=False, compare=False)
    """A visitor's own, by which it was seen."""

    @property
    def download_bytes(self) -> int:
        return sum(self.files.values())


def search(query: str, limit: int = 20) -> list[SearchResult]:
    """Return at most ``limit`` text-generation models with safetensors whose name holds ``query``, most used first.

    Raises HubError when the Hub does not answer, or answers with an error.
    """
    if not reachable():  # asked first, because the client itself would try for half a minute
        raise HubError("hub_search_unreachable")
    with explained(query):
        models = client.HfApi(endpoint(), token=token()).list_models(
            search=query,
            filter="safetensors",
            pipeline_tag="text-generation",
            sort="downloads",
            expand=["safetensors", "downloads", "gated"],
            limit=limit,
        )
        return [
            SearchResult(
                model.id, model.safetensors.total if model.safetensors else None, model.downloads, bool(model.gated)
            )
            for model in models
        ]


_probing = threading.Lock()
_probed: dict[str, tuple[float, bool]] = {}  # address -> when it was asked, whether it answered


def reachable() -> bool:
    """Tell whether the Hub answers within about 1.5 s; an answer holds for a minute. Never raises."""
    address = endpoint()
    with _probing:
        asked, answered = _probed.get(address, (float("-inf"), False))
        if time.monotonic() - asked > REMEMBER_SECONDS:
            answered = _probe(f"{address}/api/models?limit=1&expand=gated")
            _probed[address] = time.monotonic(), answered
    return answered and not constants.is_offline_mode()


def seems_silent() -> bool:
    """Tell, without waiting, whether the Hub did not answer when it was last asked; an old answer is asked for anew."""
    asked, answered = _probed.get(endpoint(), (float("-inf"), True))
    if time.monotonic() - asked > REMEMBER_SECONDS:
        threading.Thread(target=reachable, daemon=True).start()
    return not answered or constants.is_offline_mode()


def _probe(url: str) -> bool:
    answers: list[bool] = []

    def ask() -> None:
        try:
            answers.append(client.get_session().get(url, timeout=PROBE_SECONDS).is_success)
        except Exception:  # an address that is none is as silent as a dead line
            answers.append(False)

    # In a thread, because a name server that does not answer heeds no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answers == [True]


def inspect(repo: str, revision: str | None = None, login: str | None = None) -> Repository:
    """Return what ``repo`` holds at ``revision`` (default: its main branch), without fetching a weight.

    ``login``: a visitor's own, for what only they may see.

    Raises ModelError (unknown, gated, no safetensors, no config.json), CheckpointError (a file that is not what it
    claims to be) or HubError (no answer, or an error).
    """
    if not is_repo_id(repo):
        raise ModelError("model_not_found", model=repo)
    place = _snapshots(repo).parent
    is_first = not place.exists()  # else it may be another program's, whose models are not ours to remove
    with explained(repo):
        sha, sizes, license, digests, languages, is_open = listing(repo, revision, MODEL, login)

        def fetch_json(name: str) -> dict[str, Any]:
            check_bytes(name, sizes[name])
            path = client.hf_hub_download(
                repo, name, revision=sha, cache_dir=cache(), endpoint=endpoint(), token=token(login)
            )
            if login is not None and not is_open:
                _mark(repo)
            if is_first:
                note_download(place, repo)
            return read_json(Path(path))

        weights = weight_files(sizes, fetch_json)
        if not weights:
            if PACKED in sizes:
                raise ModelError("already_compressed", model=repo)
            raise no_weights(repo, sizes, fetch_json)
        if CONFIG not in sizes:
            raise ModelError("model_no_config", model=repo)
        config = fetch_json(CONFIG)
        entries = _fetch_entries(HubRanges(repo, sha, login=login), {name: sizes[name] for name in weights})
    files = {name: size for name, size in sizes.items() if name in weights or is_wanted(name)}
    known = {name: digests[name] for name in files if name in digests}
    return Repository(repo, sha, config, entries, files, license, languages, known, login)


def is_wanted(name: str) -> bool:
    """Return whether a file belongs to a model beside its weights: config, tokenizer, template; never code."""
    allowed, ignored = (any(fnmatchcase(name, each) for each in some) for some in (ALLOW_PATTERNS, IGNORE_PATTERNS))
    return allowed and not ignored


def _fetch_entries(ranges: HubRanges, sizes: dict[str, int]) -> dict[str, TensorEntry]:
    """Return the tensors of all weight files. Not by the client's get_safetensors_metadata: it trusts the names in the
    index, multiplies shapes before anyone has looked at them, and cannot tell where a header ends."""
    limit = MAX_HEADER_BYTES // len(sizes)  # so that many files cannot hold more than one may

    def fetch(file: str) -> dict[str, TensorEntry]:
        raw = ranges.read_bytes(file, 0, min(FIRST_READ_BYTES, sizes[file]))
        end = 8 + int.from_bytes(raw[:8], "little")
        if not 8 < end <= min(8 + limit, sizes[file]):
            raise CheckpointError("damaged_file", file=file)
        if end > len(raw):
            raw += ranges.read_bytes(file, len(raw), end - len(raw))
        return parse_header(file, raw[8:end], sizes[file] - end)

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(fetch, sizes))
    return joined(parts)


def fetched_bytes(repo: str, files: Mapping[str, int]) -> int:
    """Return how many bytes of a repository's large files, SHA-256 -> bytes, earlier downloads left on this machine."""
    return bytes_here(_snapshots(repo).parent / "blobs", files) if files else 0


def download(repository: Repository) -> Generator[Progress, None, Path]:
    """Fetch the repository's files, yielding at least 4 times per second; return the folder that holds them.

    Closing the generator stops the transfer within about a second; complete files stay and are not fetched again.
    With every file here already, the network is not touched. Raises ResourceError (disk too small, full or not
    writable), ModelError or HubError.
    """
    folder, total = _snapshots(repository.repo) / repository.sha, repository.download_bytes
    leases.touch(_snapshots(repository.repo).parent)

    def missing() -> list[str]:
        return [name for name in repository.files if not (folder / name).is_file()]

    if missing():
        kept = total - sum(repository.files[name] for name in missing())
        _check_disk(total - kept)
        large = [name for name in missing() if name in repository.digests]
        transfer, meter = Transfer(done=kept), Meter()
        leases.hold(_snapshots(repository.repo).parent, transfer)  # what is being fetched is in use
        yield from _watched(repository, [_fetching(repository, name, transfer) for name in large], transfer, meter)
        yield from _watched(repository, [_fetching_small(repository, transfer)], transfer, meter)
        if missing():  # where it cannot list the files, the client is content with a folder that merely exists
            raise HubError("hub_unreachable", model=repository.repo)
    yield Progress.of_bytes("download", total, total)
    return folder


def _fetching(repository: Repository, name: str, transfer: Transfer) -> Callable[[], object]:
    """Return what fetches one large file."""
    blob = Blob(
        repository.repo, repository.sha, name, repository.files[name], repository.digests[name], repository.login
    )
    return partial(fetch_blob, blob, _snapshots(repository.repo).parent / "blobs", transfer)


def _fetching_small(repository: Repository, transfer: Transfer) -> Callable[[], object]:
    """Return what has the client fetch the rest, and give the large files their names in the commit's folder."""
    return partial(
        client.snapshot_download,
        repository.repo,
        revision=repository.sha,
        cache_dir=cache(),
        endpoint=endpoint(),
        token=token(repository.login),
        allow_patterns=[glob.escape(name) for name in repository.files],
        tqdm_class=_counting_bar(transfer),
    )


def _watched(
    repository: Repository, jobs: Sequence[Callable[[], object]], transfer: Transfer, meter: Meter
) -> Generator[Progress, None, None]:
    """Yield where jobs stand until all of them are done; closing it stops them. Raises as :func:`explained` says."""
    if not jobs:
        return
    pool, total = ThreadPoolExecutor(min(AT_ONCE, len(jobs))), repository.download_bytes
    running = [pool.submit(job) for job in jobs]
    try:
        while not all(job.done() for job in running):
            yield meter.progress(min(transfer.here, total), total, transfer.waits_until - time.monotonic())
            wait(running, REPORT_SECONDS, FIRST_EXCEPTION)
            if any(job.done() and job.exception() is not None for job in running):
                break
    finally:
        transfer.stop.set()
        wait(running, STOP_SECONDS)
        pool.shutdown(wait=False, cancel_futures=True)
    transfer.stop.clear()
    failed = [error for job in running if job.done() and not job.cancelled() and (error := job.exception())]
    with explained(repository.repo):
        for error in sorted(failed, key=lambda each: isinstance(each, Cancelled)):
            raise error


def _check_disk(need: int) -> None:
    folder = cache()
    if need > (most := budget()) and not settings().is_private:  # an owner may fill a disk, a stranger may not
        raise ResourceError("over_budget", need=format_bytes(need), most=format_bytes(most))
    make_room(need, disk=folder)
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if free < need:
        raise ResourceError("disk_too_small", need=format_bytes(need), free=format_bytes(free))


def _counting_bar(transfer: Transfer) -> type[Any]:
    """Return a progress bar that draws nothing, joins those of ``transfer`` if it counts bytes, and stops with it."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})  # type: ignore[no-untyped-call]
            if options.get("unit") == "B":
                transfer.bars.append(self)

        def update(self, count: float | None = 1) -> None:
            transfer.add(0)
            with self.get_lock():
                self.n += count or 0

    return Bar


def local_snapshot(repo: str, revision: str | None = None) -> tuple[str, Path] | None:
    """Return commit and folder of the newest complete copy of ``repo`` on this machine, or of the one at ``revision``;
    the network is not touched."""
    folders = _snapshots(repo).glob("*/") if is_repo_id(repo) else ()
    wanted = [folder for folder in folders if revision in (None, folder.name)]
    newest_first = sorted(wanted, key=lambda folder: folder.stat().st_mtime, reverse=True)
    return next(((folder.name, folder) for folder in newest_first if _is_complete(repo, folder)), None)


def is_somebodys(repo: str) -> bool:
    """Return whether a model that is kept was seen by a visitor's own login while it was private or gated, so that
    others may not be shown it unless the Hub says so."""
    return (_snapshots(repo).parent / SOMEBODYS).exists()


def _mark(repo: str) -> None:
    (_snapshots(repo).parent / SOMEBODYS).touch()


def _is_complete(repo: str, folder: Path) -> bool:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    try:
        weights = weight_files(names, lambda name: read_json(folder / name))
        listing = client.get_cached_repo_tree(repo, revision=folder.name, cache_dir=cache())
    except CheckpointError:  # a shard is not here
        return False
    except errors.CachedRepoTreeNotFoundError:  # fetched file by file, as transformers does
        return bool(weights) and CONFIG in names and any(name.startswith("tokenizer") for name in names)
    return bool(weights) and all(file.path in names for file in listing if is_wanted(file.path))


def _snapshots(repo: str) -> Path:
    return cache() / repo_folder_name(repo_id=repo, repo_type="model") / "snapshots"
