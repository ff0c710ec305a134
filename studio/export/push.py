"""Files -> a repository of the Hub, as whoever a token names: all of them in one commit at the end, or none.

Large files go first, each once: what the Hub has is not sent again, so that a push that broke off goes on where it
stopped. Knows nothing of what is in the files, nor where the token came from.
"""

import io
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub as client
from huggingface_hub import constants, errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from studio.base.errors import Cancelled, HubError, ModelError, disk_error
from studio.base.progress import Progress
from studio.checkpoint.hub_client import endpoint
from studio.export.push_files import Files

COMMIT = "push_commit"
"""The stage that cannot be taken back: where it is stopped, nobody knows whether the files are there."""
REPORT_SECONDS, STOP_SECONDS = 0.2, 2.0
ATTRIBUTES = ".gitattributes"
"""The one file that a new repository has."""
MESSAGE = "Upload by Quantization Studio"
READ = "read"
"""The role of a token that may not write."""


@dataclass(frozen=True)
class Pushed:
    """What came of it."""

    repo: str
    url: str
    commit: str
    nbytes: int
    """Of all files."""
    is_private: bool


@dataclass(frozen=True)
class Destination:
    """Where files go: ``Destination("owner/name")``."""

    repo: str
    is_public: bool = False
    is_existing: bool = False
    """Whether a repository that has files already is meant."""


def pushed(files: Files, destination: Destination, token: str) -> Generator[Progress, None, Pushed]:
    """Send files to a repository, which is made if there is none, yielding bytes at least four times a second.

    Closing the generator stops it; what arrived whole by then is not sent again. Raises ModelError for a name that is
    none, is taken, or is public while nobody said so, HubError for a token that is refused, may not write, or a line
    that broke, also where it broke while the commit was made.
    """
    constants.HF_HUB_DISABLE_XET = True  # which moves bytes outside Python, where no exception stops it
    repo = destination.repo
    check_name(repo)
    api = client.HfApi(endpoint(), token=token)
    with ExitStack() as stack:
        pool, stop = ThreadPoolExecutor(1), threading.Event()
        stack.callback(pool.shutdown, wait=False)
        try:
            streams = [stack.enter_context(CountedFile(file, stop)) for file in files.values()]
            total = sum(file.stat().st_size for file in files.values())
        except OSError as error:
            raise disk_error(error, Path(error.filename or repo)) from error

        def followed(stage: str, work: Callable[[], Any]) -> Generator[Progress, None, Any]:
            for stream in streams:
                stream.done = 0
            job = pool.submit(work)
            try:
                while not job.done():
                    yield Progress.of_bytes(stage, min(sum(each.done for each in streams), total), total)
                    wait([job], REPORT_SECONDS)
            finally:
                if not job.done():
                    stop.set()
                    wait([job], STOP_SECONDS)
            return job.result()

        with _explained(repo):
            parent, is_private = yield from followed("push_ask", lambda: _made_ready(api, destination))
            adds = yield from followed("checksums", lambda: _operations(files, streams))
            yield from followed("push", lambda: _send(api, repo, adds))
            commit = yield from followed(COMMIT, lambda: _commit(api, repo, adds, parent))
    return Pushed(repo, url_of(repo), commit, total, is_private)


def url_of(repo: str) -> str:
    """Return the address of a repository's page."""
    return f"{endpoint()}/{repo}"


def check_name(repo: str) -> None:
    """Raise ModelError for what is no ``owner/name``."""
    try:
        validate_repo_id(repo)
    except errors.HFValidationError as error:
        raise ModelError("push_bad_name", repo=repo[:120]) from error
    if repo.count("/") != 1:
        raise ModelError("push_bad_name", repo=repo[:120])


def _check_token(api: client.HfApi, repo: str) -> None:
    """Raise HubError for a token that the Hub does not know, or that may only read."""
    access = (api.whoami().get("auth") or {}).get("accessToken") or {}
    if access.get("role") == READ:
        raise HubError("push_forbidden", repo=repo)


def _made_ready(api: client.HfApi, destination: Destination) -> tuple[str | None, bool]:
    """Make the repository if there is none; return its last commit, and whether it is private.

    Asks first whose the token is, so that one that has run out is told from a repository that is not there.
    """
    repo = destination.repo
    _check_token(api, repo)
    try:
        info = api.model_info(repo)
    except errors.RepositoryNotFoundError as error:
        if error.response.status_code == httpx2.codes.UNAUTHORIZED:
            raise
        try:
            api.create_repo(repo, private=not destination.is_public)
        except errors.HfHubHTTPError as refused:
            if refused.response.status_code == httpx2.codes.CONFLICT:  # one that this token may not see
                raise ModelError("push_taken", repo=repo) from refused
            raise
        info = api.model_info(repo)
        return info.sha, bool(info.private)
    held = {file.rfilename for file in info.siblings or ()} - {ATTRIBUTES}
    if held and not destination.is_existing:
        raise ModelError("push_taken", repo=repo)
    if not info.private and not destination.is_public:
        raise ModelError("push_is_public", repo=repo)
    return info.sha, bool(info.private)


class CountedFile(io.BufferedIOBase):
    """A file that knows how far it was read, and raises Cancelled once ``stop`` is set."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        self._file = path.open("rb")
        self._stop = stop
        self.done = 0
        """Bytes read since it was last begun."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self._stop.is_set():
            raise Cancelled
        piece = self._file.read(-1 if size is None else size)
        self.done = self._file.tell()
        return piece

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def _operations(files: Files, streams: list[CountedFile]) -> list[Any]:
    """Return what a commit adds; each file is read once for its checksum."""
    pairs: Any = zip(files, streams, strict=True)
    return [client.CommitOperationAdd(name, stream) for name, stream in pairs]


def _send(api: client.HfApi, repo: str, adds: list[Any]) -> None:
    """Send what is large and not there yet, one after the other.

    Not all by one call: of two files with the same content the client would read one stream from two threads.
    """
    for add in adds:
        api.preupload_lfs_files(repo, [add], free_memory=False, revision="main")


def _commit(api: client.HfApi, repo: str, adds: list[Any], parent: str | None) -> str:
    """Make the one commit and return its name, also where the line broke before the Hub's word of it came.

    Raises HubError where nobody can say whether it was made.
    """
    try:
        return str(api.create_commit(repo, adds, commit_message=MESSAGE, parent_commit=parent).oid)
    except httpx2.ConnectError:  # it was not even asked for
        raise
    except (httpx2.TransportError, errors.HfHubHTTPError) as error:
        if isinstance(error, errors.HfHubHTTPError) and error.response.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
            raise
        unknown = HubError("push_unknown", url=url_of(repo))
        try:
            info = api.model_info(repo)
        except (httpx2.TransportError, errors.HfHubHTTPError) as lost:
            raise unknown from lost
        there = {file.rfilename for file in info.siblings or ()}
        if info.sha is None or info.sha == parent or not {add.path_in_repo for add in adds} <= there:
            raise unknown from error  # the Hub may be at it yet
        return info.sha


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what the client raises into a sentence for the user. No token is ever in one."""
    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _refused(error, repo) from error
    except httpx2.TransportError as error:
        raise HubError("push_broke_off", repo=repo) from error
    except RuntimeError as error:  # what the client says of a file's upload, around what happened
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            raise _refused(cause, repo) from error
        if isinstance(cause, Cancelled):
            raise cause from error
        if isinstance(cause, httpx2.TransportError):
            raise HubError("push_broke_off", repo=repo) from error
        raise HubError("hub_failed", model=repo, reason=type(cause or error).__name__) from error
    except (ValueError, OSError) as error:
        raise HubError("hub_failed", model=repo, reason=type(error).__name__) from error


def _refused(error: errors.HfHubHTTPError, repo: str) -> HubError | ModelError:
    status = error.response.status_code
    if status == httpx2.codes.UNAUTHORIZED:
        return HubError("push_token_refused")
    if status == httpx2.codes.FORBIDDEN:
        return HubError("push_forbidden", repo=repo)
    if status in (httpx2.codes.CONFLICT, httpx2.codes.PRECONDITION_FAILED):
        return HubError("push_changed", repo=repo)
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        return HubError("push_broke_off", repo=repo)
    return HubError("hub_failed", model=repo, reason=f"HTTP {status}")
