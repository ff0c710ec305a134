"""The Hub's web server: its address, whose login is used, ranges of its files, its errors as sentences for the user.

Knows nothing of what a model's files hold.
"""

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import huggingface_hub as client
from huggingface_hub import constants, errors
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from studio.base.errors import HubError, ModelError, ResourceError, TextError
from studio.base.settings import settings
from studio.checkpoint.card_facts import languages_of
from studio.checkpoint.license import License

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT_SECONDS = 10.0
PATIENCE_SECONDS = 10.0
"""The most that a server may ask for between two tries at a few bytes: somebody waits for them."""
WAITS = (0.5, 2.0)
"""Seconds before a range is asked for again, when the line broke or the server stumbled."""
SERVER_ERROR, TOO_MANY = 500, 429
LONGEST_WAIT_SECONDS = 300.0
"""Of what a server asks for."""
MODEL, DATASET = "model", "dataset"
"""Kinds of repository."""


def endpoint() -> str:
    """Return the Hub's address."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def token(login: str | None = None) -> str | bool | None:
    """Return whose login is used: a visitor's own, else the owner's (None: if there is one), but nobody's for a page
    open to others."""
    return login or (None if settings().is_private else False)


def own_token() -> str | None:
    """Return the owner's login, of the environment or of ``hf auth login``; None where there is none."""
    return client.get_token()


def cache() -> Path:
    """Return where the client keeps what it fetched."""
    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE).expanduser().resolve()


def is_repo_id(name: str) -> bool:
    """Tell whether the Hub could know ``name``: ``owner/name``, or one of the old bare names such as ``gpt2``."""
    try:
        client.hf_hub_url(name, "config.json")
    except errors.HFValidationError:
        return False
    return True


class Listing(NamedTuple):
    """What a repository says that it holds."""

    sha: str
    """Its commit."""
    sizes: dict[str, int]
    """File -> bytes."""
    license: License
    digests: dict[str, str]
    """File -> SHA-256, of those that are kept as large ones."""
    languages: tuple[str, ...] = ()
    is_open: bool = False
    """Whether anybody may have it, as the Hub says: it is neither private nor gated."""


def retry_after(response: httpx2.Response) -> float | None:
    """Return how many seconds a server wants to be left alone, None where it does not say; 5 minutes at most."""
    said = response.headers.get("Retry-After", "").strip()
    limit = re.search(r"\bt=(\d{1,9})\b", response.headers.get("RateLimit", ""))  # as the Hub says it
    if re.fullmatch(r"\d{1,9}", said):
        return min(float(said), LONGEST_WAIT_SECONDS)
    with suppress(ValueError, TypeError):
        at = parsedate_to_datetime(said)
        return min(max(0.0, at.timestamp() - time.time()), LONGEST_WAIT_SECONDS)
    return None if limit is None else min(float(limit[1]), LONGEST_WAIT_SECONDS)


def listing(repo: str, revision: str | None, kind: str, login: str | None = None) -> Listing:
    """Return what a repository holds, as far as ``login`` may see it. Raises as :func:`explained` says."""
    with explained(repo, kind):
        api = client.HfApi(endpoint(), token=token(login))
        ask = api.dataset_info if kind == DATASET else api.model_info
        info = ask(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        digests = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs is not None}
        said = vars(info.card_data) if info.card_data else {}
        sound = {name: digest for name, digest in digests.items() if re.fullmatch("[0-9a-f]{64}", digest or "")}
        is_open = info.private is False and not info.gated
        return Listing(str(info.sha), sizes, License.of(said), sound, languages_of(said), is_open)


class HubRanges:
    """The files of a repository at one commit, read a few bytes at a time; several threads may read at once."""

    def __init__(self, repo: str, sha: str, kind: str = MODEL, login: str | None = None) -> None:
        self._repo, self._sha, self._kind, self._login = repo, sha, kind, login
        self._places: dict[str, str] = {}
        """Where the Hub said that a file really lies, so that it is not asked each time; signed for some minutes."""

    def read(self, file: str, start: int, length: int) -> "Tensor":
        """Return bytes ``start:start + length`` of ``file``, uint8 [length]. Raises as :meth:`read_bytes` does."""
        import torch  # not for headers

        if not length:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(bytearray(self.read_bytes(file, start, length)), dtype=torch.uint8)

    def read_bytes(self, file: str, start: int, length: int) -> bytes:
        """Return bytes ``start:start + length`` of ``file``.

        Raises ModelError or HubError, also for a server that sends anything but these bytes.
        """
        if not length:
            return b""
        with explained(self._repo, self._kind):
            return self._fetch(file, start, start + length)

    def _fetch(self, file: str, start: int, stop: int) -> bytes:
        place = self._places.get(file)
        if place is not None:
            try:
                return _asked(place, file, start, stop, {})[0]
            except (httpx2.HTTPError, HubError):  # the signature is too old: ask for a new one
                self._places.pop(file, None)
        url = client.hf_hub_url(self._repo, file, repo_type=self._kind, revision=self._sha, endpoint=endpoint())
        content, place = _asked(url, file, start, stop, build_hf_headers(token=token(self._login)))
        if httpx2.URL(place).host != httpx2.URL(url).host:  # elsewhere the login is not sent, nor needed
            self._places[file] = place
        return content


def _asked(url: str, file: str, start: int, stop: int, headers: dict[str, str]) -> tuple[bytes, str]:
    """Return bytes ``start:stop`` of a file and the address they came from in the end.

    Not by the client's http_stream_backoff: it cannot take up a transfer that broke off half way, and sleeps for
    minutes where too much was asked for. Raises HubError for other bytes than these, and what the client raises.
    """
    headers = headers | {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    waits = iter(WAITS)
    while True:
        try:
            with client.get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS) as response:
                client.hf_raise_for_status(response)
                return _body(response, file, start, stop), str(response.url)
        except (httpx2.TransportError, errors.HfHubHTTPError) as error:
            answer = error.response if isinstance(error, errors.HfHubHTTPError) else None
            wait = next(waits, None)
            if wait is None or (answer is not None and not has_stumbled(answer)):
                raise
            said = None if answer is None else retry_after(answer)
            time.sleep(wait if said is None else min(said, PATIENCE_SECONDS))


def has_stumbled(response: httpx2.Response) -> bool:
    """Return whether an answer is an error that passes: the server fell, or was asked too much."""
    return response.status_code >= SERVER_ERROR or response.status_code == TOO_MANY


def _body(response: httpx2.Response, file: str, start: int, stop: int) -> bytes:
    """Return what the server sends, if it says that it is the range asked for, and it is as long; no more is read."""
    said = re.match(r"bytes (\d+)-(\d+)/", response.headers.get("Content-Range", ""))
    is_part = response.status_code == httpx2.codes.PARTIAL_CONTENT
    if not is_part or said is None or said.groups() != (str(start), str(stop - 1)):
        raise HubError("hub_bad_range", file=file)  # the whole file is on its way, or another part of it
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > stop - start:
            break
    if len(content) != stop - start:
        raise HubError("hub_bad_range", file=file)
    return bytes(content)


@contextmanager
def explained(model: str, kind: str = MODEL) -> Iterator[None]:
    """Turn what the client raises into a sentence for the user."""
    try:
        yield
    except errors.GatedRepoError as error:
        if kind == DATASET:
            raise TextError("dataset_gated", dataset=model) from error
        raise ModelError("model_gated", model=model) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        if kind == DATASET:
            raise TextError("dataset_not_found", dataset=model) from error
        raise ModelError("model_not_found", model=model) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx2.TransportError) as error:
        raise HubError("dataset_unreachable" if kind == DATASET else "hub_unreachable", model=model) from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code == TOO_MANY:
            seconds = retry_after(error.response) or WAITS[-1]
            raise HubError("hub_patience", model=model, seconds=f"{seconds:.0f}") from error
        raise HubError("hub_failed", model=model, reason=f"HTTP {error.response.status_code}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise HubError("hub_failed", model=model, reason=type(error).__name__) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError("disk_full", path=cache()) from error
        raise ResourceError("disk_unwritable", path=cache(), reason=error.strerror or "?") from error
