"""A large file of the Hub into the client's cache: taken up where it broke off, and believed only with its checksum.

The client itself begins such a file anew whenever its process or its call ends, and checks its size alone. Knows
nothing of what a file holds; small files are the client's own work.
"""

import errno
import hashlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
import huggingface_hub as client
from filelock import FileLock, Timeout
from huggingface_hub import errors
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from studio.base.errors import Cancelled, HubError
from studio.checkpoint.hub_client import TIMEOUT_SECONDS, TOO_MANY, endpoint, has_stumbled, retry_after, token

TRIES = 5
"""How often in a row nothing may come, before it is given up."""
WAIT_SECONDS = 0.5
"""Before it is tried again: doubled each time, unless the server says how long."""
PIECE_BYTES = 1 << 20
PARTIAL = ".studio-partial"
"""What the name of a file ends with that is not whole yet."""
LOCK_SECONDS = 0.2


@dataclass
class Transfer:
    """What is under way of one download, for whoever shows it: several files at once add to it."""

    stop: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    """Bytes that are here."""
    waits_until: float = 0.0
    """When the server, which asked for patience, is asked again, by ``time.monotonic``."""
    bars: list[Any] = field(default_factory=list)
    """The client's own, of what it fetches: one of the bytes off the wire, and one of those on disk."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def here(self) -> int:
        """All bytes that are here."""
        return self.done + max((bar.n for bar in self.bars), default=0)

    def add(self, nbytes: int) -> None:
        """Note that so many more bytes are here. Raises Cancelled once it is to stop."""
        with self._lock:
            self.done += nbytes
        if self.stop.is_set():
            raise Cancelled

    def wait(self, seconds: float, is_asked: bool = False) -> None:
        """Wait before the next try; ``is_asked``: because the server wants it. Raises Cancelled."""
        if is_asked:
            self.waits_until = max(self.waits_until, time.monotonic() + seconds)
        if self.stop.wait(seconds):
            raise Cancelled


@dataclass(frozen=True)
class Blob:
    """A file of a repository at one commit: its bytes and its SHA-256 are what the repository's listing says."""

    repo: str
    sha: str
    name: str
    nbytes: int
    digest: str
    login: str | None = field(default=None, repr=False)
    """A visitor's own, by which it is fetched."""


def bytes_here(folder: Path, files: Mapping[str, int]) -> int:
    """Return how many bytes of ``files``, SHA-256 -> bytes, are in ``folder`` already, in whole files and in parts."""
    here = 0
    for digest, nbytes in files.items():
        partial = folder / f"{digest}{PARTIAL}"
        if (folder / digest).is_file():
            here += nbytes
        elif partial.is_file():
            here += min(partial.stat().st_size, nbytes)
    return here


def fetch_blob(blob: Blob, folder: Path, transfer: Transfer) -> Path:
    """Return the file in ``folder``, the client's ``blobs`` of the repository, where it is called by its checksum.

    What an earlier call left of it is taken up. Raises Cancelled, HubError for a file that is not what the listing says
    (which is then gone), what the client raises, or OSError for a disk.
    """
    whole, partial = folder / blob.digest, folder / f"{blob.digest}{PARTIAL}"
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(partial, transfer):
        if whole.is_file():  # another process was at it
            transfer.add(blob.nbytes)
            return whole
        try:
            with partial.open("ab+") as file:
                known = _known(blob, file, transfer)
                _fill(blob, file, known, transfer)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # it is in its own way
                partial.unlink(missing_ok=True)
            raise
        except HubError:
            partial.unlink(missing_ok=True)
            raise
        partial.replace(whole)
    return whole


@contextmanager
def _only_one(partial: Path, transfer: Transfer) -> Iterator[None]:
    """Wait until no other process fetches the same file."""
    repository = partial.parents[1]
    place = repository.parent / ".locks" / repository.name  # where the client leaves its own
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f"{partial.name}.lock", thread_local=False)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            transfer.wait(LOCK_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _known(blob: Blob, file: BinaryIO, transfer: Transfer) -> "hashlib._Hash":
    """Return the checksum of what is here already, the file at its end; a file that is too long begins anew."""
    known = hashlib.sha256()
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        known.update(piece)
        transfer.add(len(piece))
    if file.tell() > blob.nbytes:
        transfer.add(-file.tell())
        file.truncate(0)
        return hashlib.sha256()
    return known


def _fill(blob: Blob, file: BinaryIO, known: "hashlib._Hash", transfer: Transfer) -> None:
    """Fetch what is missing, and compare the whole with its checksum."""
    failed = 0
    while (before := file.seek(0, 2)) < blob.nbytes:
        try:
            _ask(blob, file, known, transfer)
        except httpx2.TransportError:
            failed = failed + 1 if file.tell() == before else 0
            if failed >= TRIES:
                raise
            transfer.wait(WAIT_SECONDS * 2**failed)
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            failed += 1
            if failed >= TRIES or not has_stumbled(error.response):
                raise
            said = retry_after(error.response)
            asked = said is not None and status == TOO_MANY
            transfer.wait(WAIT_SECONDS * 2**failed if said is None else said, asked)
        else:
            failed = failed + 1 if file.tell() == before else 0
            if failed >= TRIES:
                raise HubError("hub_wrong_file", file=blob.name)
    if known.hexdigest() != blob.digest:
        transfer.add(-blob.nbytes)
        raise HubError("hub_wrong_file", file=blob.name)


def _ask(blob: Blob, file: BinaryIO, known: "hashlib._Hash", transfer: Transfer) -> None:
    """Append what the server sends of the rest; it may end early.

    A redirect to another host gets no login: the client's session takes it off. Raises HubError for more bytes than
    there are, or others than were asked for.
    """
    start = file.tell()
    url = client.hf_hub_url(blob.repo, blob.name, revision=blob.sha, endpoint=endpoint())
    headers = build_hf_headers(token=token(blob.login)) | {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    with client.get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS) as response:
        client.hf_raise_for_status(response)
        said = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if response.status_code == httpx2.codes.PARTIAL_CONTENT:
            if said is None or int(said[1]) != start:
                raise HubError("hub_bad_range", file=blob.name)
            passed = 0
        else:
            passed = start  # the whole file once more
        room = blob.nbytes - start
        for piece in response.iter_bytes():
            if passed >= len(piece):
                passed -= len(piece)
                transfer.add(0)
                continue
            piece, passed = piece[passed:], 0
            room -= len(piece)
            if room < 0:
                raise HubError("hub_wrong_file", file=blob.name)
            file.write(piece)
            file.flush()
            known.update(piece)
            transfer.add(len(piece))
