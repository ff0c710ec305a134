"""A Hub on this machine: a real HTTP server for the real client, serving folders as model repositories.

    with LocalHub() as hub:
        hub.add("owner/model", folder)
        # HF_ENDPOINT=hub.url

It answers the routes that search, inspection, ranges, download and (``hub_push.py``) pushing use, and keeps a list of
what it was asked and what it sent.
"""

import hashlib
import json
import math
import re
import threading
import time
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_push import Account, PushRoutes

PIECE_BYTES = 64 * 1024


@dataclass
class Request:
    """One line of the log; ``sent`` grows while the body is on its way, in bytes."""

    method: str
    path: str
    range: str | None
    authorization: str | None = None
    sent: int = 0
    host: str = ""
    """The name of the server that it was sent to, where that was noted."""


@dataclass(frozen=True)
class Blob:
    """One file of a repository; weights are kept as LFS objects, as on the Hub."""

    path: Path
    size: int
    sha256: str
    git: str
    lfs: bool

    @classmethod
    def of(cls, path: Path) -> Self:
        content = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return cls(path, len(content), hashlib.sha256(content).hexdigest(), git, path.suffix == ".safetensors")

    @property
    def pointer(self) -> dict[str, Any]:
        return {"lfs": {"sha256": self.sha256, "size": self.size, "pointerSize": 135}} if self.lfs else {}


@dataclass(frozen=True)
class Model:
    """One repository at its only commit."""

    repo: str
    blobs: dict[str, Blob]
    sha: str
    gated: bool
    downloads: int
    pipeline_tag: str
    card: dict[str, Any]
    """What the Hub says that its card says."""

    def siblings(self) -> list[dict[str, Any]]:
        return [
            {"rfilename": name, "size": blob.size, "blobId": blob.git} | blob.pointer
            for name, blob in self.blobs.items()
        ]

    def tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": blob.size, "oid": blob.git}
            | ({"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": 135}} if blob.lfs else {})
            for name, blob in self.blobs.items()
        ]

    def parameters(self) -> int:
        """All elements of all weights, as the headers claim them."""
        return sum(
            math.prod(claim["shape"])
            for name, blob in self.blobs.items()
            if name.endswith(".safetensors")
            for tensor, claim in _claims(blob.path).items()
            if tensor != "__metadata__"
        )


def _claims(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        claims: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return claims


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer."""

    kind: Literal["status", "cut", "flipped", "longer", "whole"]
    """An error; the line breaks in the middle; the last byte is another; a byte too many, said to be all; the whole
    file where a part was asked for."""
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class LocalHub:
    """The server; ``bytes_per_second`` slows every file down, ``status`` answers everything with that error."""

    bytes_per_second: float = math.inf
    status: int | None = None
    fault: Literal["", "whole", "elsewhere", "unsaid", "short", "long", "breaks"] = ""
    """What a Range request for a file gets: the whole file, another part, its part without a word which it is, too few
    bytes or too many; or the line breaks, once."""
    elsewhere: bool = False
    """Whether weights are kept by another server, as on the Hub: a file's address leads to one that is signed."""
    ordered: list[Fault] = field(default_factory=list)
    """What the next requests for a large file's bytes meet, one each, the first first; then all is well."""
    private: dict[str, str] = field(default_factory=dict)
    """Repository -> the login that sees it; others are told that there is none."""
    signature: int = 0
    """The only one that the other server takes."""
    models: dict[str, Model] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    """Whose token may push, and what was pushed."""
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = False  # so that closing waits for them, and no socket outlives the server
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(
        self,
        repo: str,
        folder: Path,
        gated: bool = False,
        downloads: int = 0,
        pipeline_tag: str = "text-generation",
        card: dict[str, Any] | None = None,
    ) -> Model:
        """Serve what ``folder`` holds now as the repository ``repo``; a data set's name begins with ``datasets/``."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        blobs = {path.relative_to(folder).as_posix(): Blob.of(path) for path in paths}
        sha = hashlib.sha1(repr([(name, blob.git) for name, blob in blobs.items()]).encode()).hexdigest()
        self.models[repo] = Model(repo, blobs, sha, gated, downloads, pipeline_tag, card or {})
        return self.models[repo]

    def sent(self, name: str) -> int:
        """Return the bytes of bodies sent for the file ``name``, over all repositories."""
        return sum(request.sent for request in self.requests if request.path.endswith(f"/{name}"))

    def note(self, method: str, path: str, headers: Message) -> None:
        """Remember a request, and to which name of the server it was sent."""
        self.requests.append(Request(method, path, None, headers.get("Authorization"), host=headers.get("Host", "")))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    """Connections that wait to be taken: with five, those of more threads wait a second for a second try."""


class _Handler(PushRoutes, BaseHTTPRequestHandler):
    """One request per connection (HTTP/1.0), so that nothing is left open."""

    def log_message(self, *_: object) -> None:
        """Keep the terminal clean; the log is ``LocalHub.requests``."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        self.request_log = Request(self.command, path, self.headers.get("Range"), self.headers.get("Authorization"))
        self.hub.requests.append(self.request_log)
        if self.hub.status is not None:
            self._fail(self.hub.status)
        elif path == "/api/whoami-v2":
            self.whoami()
        elif path == "/api/models":
            self._json([_listed(model, query) for model in self._search(query)])
        elif match := re.fullmatch(
            r"/api/(?:models/)?((?<=models/).+?|datasets/.+?)(?:/revision/([^/]+))?", path.partition("/tree/")[0]
        ):
            self._describe(match[1], match[2] or path.partition("/tree/")[2] or "main", tree="/tree/" in path)
        elif match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/stored/(\d+)/(.+?)/([^/]+)", path):
            self._stored(int(match[1]), match[2], match[3])
        else:
            self._fail(404)

    def _search(self, query: dict[str, list[str]]) -> list[Model]:
        (words,), (limit,) = query.get("search", [""]), query.get("limit", ["1000"])
        found = [
            model
            for model in self.hub.models.values()
            if not model.repo.startswith("datasets/")
            and words.lower() in model.repo.lower()
            and query.get("pipeline_tag", [model.pipeline_tag]) == [model.pipeline_tag]
            and ("safetensors" not in query.get("filter", []) or any(blob.lfs for blob in model.blobs.values()))
        ]
        return sorted(found, key=lambda model: -model.downloads)[: int(limit)]

    def _describe(self, repo: str, revision: str, tree: bool) -> None:
        """Answer model_info, or the listing of all files."""
        if model := self._model(repo, revision):
            facts = {"id": model.repo, "sha": model.sha, "siblings": model.siblings(), "cardData": model.card} | {
                "private": model.repo in self.hub.account.private or model.repo in self.hub.private,
                "gated": "manual" if model.gated else False,
            }
            self._json(model.tree() if tree else facts)

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        """Answer one file, or the asked range of it."""
        model = self._model(repo, revision)
        if model is None:
            return
        if model.gated:
            self._fail(403, "GatedRepo")
        elif name not in model.blobs:
            self._fail(404, "EntryNotFound", {"X-Repo-Commit": model.sha})
        elif self.hub.elsewhere and model.blobs[name].lfs:
            place = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/stored/{self.hub.signature}/{repo}/{name}"
            blob = model.blobs[name]
            linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
            self._send(302, b"", {"Location": place, "X-Repo-Commit": model.sha, **linked})
        else:
            self._file(model, model.blobs[name])

    def _stored(self, signature: int, repo: str, name: str) -> None:
        """Answer a file from the other server."""
        if signature != self.hub.signature or self.request_log.authorization:
            self._fail(403)
        else:
            self._file(self.hub.models[repo], self.hub.models[repo].blobs[name])

    def _model(self, repo: str, revision: str) -> Model | None:
        model: Model | None = self.hub.models.get(repo)
        login = self.hub.private.get(repo)
        is_shut = login is not None and self.request_log.authorization != f"Bearer {login}"
        if model is None or is_shut or (repo in self.hub.account.private and self.account is None):
            self._fail(404, "RepoNotFound")
            return None
        if revision not in ("main", model.sha):
            self._fail(404, "RevisionNotFound")
            return None
        return model

    def _file(self, model: Model, blob: Blob) -> None:
        headers = {"X-Repo-Commit": model.sha, "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size), "ETag": '"of-the-cdn"'}
        else:
            headers |= {"ETag": f'"{blob.git}"'}
        wrong = self.hub.ordered.pop(0) if self.hub.ordered and blob.lfs and self.command == "GET" else None
        if wrong is not None and wrong.kind == "status":
            self._fail(wrong.status, None, wrong.headers)
            return
        kind = "" if wrong is None else wrong.kind
        start, stop = 0, blob.size
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.request_log.range or "") if kind != "whole" else None
        fault, name = self.hub.fault if match else "", "Content-Range"
        if match and fault != "whole":
            start, stop = int(match[1]), min(int(match[2] or stop) + 1, blob.size)
            headers |= {name: f"bytes {start}-{stop - 1}/{blob.size}"}
        if fault == "elsewhere":
            start, stop = start + 1, stop + 1
            headers |= {name: f"bytes {start}-{stop - 1}/{blob.size}"}
        if fault == "unsaid":
            del headers[name]
        with blob.path.open("rb") as file:
            file.seek(start)
            content = file.read(stop - start)
        if fault == "breaks":
            self.hub.fault = ""
            headers |= {"Content-Length": str(len(content))}
        if fault in ("short", "breaks"):
            content = content[:-1]
        if fault == "long":
            content *= 1000
        if kind == "cut":
            headers |= {"Content-Length": str(len(content))}
            content = content[: len(content) // 2]
        if kind == "flipped":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if kind == "longer":
            content += b"\0"
        self._send(206 if match and fault != "whole" else 200, content, headers)

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str | None = None, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"", ({"X-Error-Code": code} if code else {}) | (headers or {}))

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            for start in range(0, len(content), PIECE_BYTES):
                piece = content[start : start + PIECE_BYTES]
                time.sleep(len(piece) / self.hub.bytes_per_second)
                self.request_log.sent += len(piece)  # before the client has it, and may ask for this sum
                self.wfile.write(piece)
        except ConnectionError:
            self.request_log.sent -= len(piece)
            self.close_connection = True  # the client has heard enough


def _listed(model: Model, query: dict[str, list[str]]) -> dict[str, Any]:
    """One answer of a search: its name, and what ``expand`` asks for."""
    known: dict[str, Any] = {"downloads": model.downloads, "gated": "manual" if model.gated else False}
    if "safetensors" in query.get("expand", []) and any(blob.lfs for blob in model.blobs.values()):
        known["safetensors"] = {"parameters": {"F16": model.parameters()}, "total": model.parameters()}
    return {"id": model.repo} | {key: value for key, value in known.items() if key in query.get("expand", [])}
