"""What the Hub of the tests answers to whoever pushes: whose a token is, repositories made, objects, one commit.

Large files go to "another server" (the same one under its other name), to which no login may be sent.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 4096
"""Bytes from which on a file is an LFS object."""
PIECE = 1 << 16


@dataclass
class Account:
    """The one who may push, and what the server keeps."""

    token: str = "hf_writes"
    name: str = "owner"
    role: str = "write"
    expired: bool = False
    owns: tuple[str, ...] = ("owner",)
    """Names under which repositories may be made."""
    place: Path | None = None
    """Where pushed files are kept."""
    private: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    """Repositories of others that nobody here may see."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """LFS objects that arrived whole, by checksum, committed or not."""
    put: dict[str, int] = field(default_factory=dict)
    """Checksum -> how often an object began to arrive."""
    break_after: int | None = None
    """Bytes of an object after which the line breaks,"""
    breaks: int = 1 << 30
    """and how often it does."""
    commits: list[dict[str, Any]] = field(default_factory=list)
    is_silent: bool = False
    """Whether the line breaks between a commit and the word of it."""


class PushRoutes(BaseHTTPRequestHandler):
    """A handler's part for pushing."""

    hub: Any

    @property
    def account(self) -> Account | None:
        """Whose the request's token is, None for nobody's."""
        account: Account = self.hub.account
        is_known = self.headers.get("Authorization") == f"Bearer {account.token}"
        return account if is_known and not account.expired else None

    def whoami(self) -> None:
        if self.account is None:
            self._answer(401, {"error": "Invalid credentials in Authorization header"})
        else:
            self._answer(
                200, {"name": self.account.name, "auth": {"accessToken": {"role": self.account.role}}, "orgs": []}
            )

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self._log(path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            self._answer(200, {"warnings": [], "errors": []})
            return
        if self.account is None:
            self._answer(401, {"error": "Invalid credentials in Authorization header"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif match := re.fullmatch(r"/api/models/(.+?)/preupload/main", path):
            if self._may_write(match[1]):
                self._preupload(json.loads(body))
        elif match := re.fullmatch(r"/(.+?)\.git/info/lfs/objects/batch", path):
            self._batch(json.loads(body))
        elif match := re.fullmatch(r"/api/models/(.+?)/commit/main", path):
            if self._may_write(match[1]):
                self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._answer(404, {})

    def do_PUT(self) -> None:
        """Take an object, unless the line breaks on the way."""
        path = unquote(urlsplit(self.path).path)
        self._log(path)
        account: Account = self.hub.account
        oid, length = path.rpartition("/")[2], int(self.headers["Content-Length"])
        account.put[oid] = account.put.get(oid, 0) + 1
        if self.headers.get("Authorization") is not None:
            self._answer(400, {})  # as the Hub's store does: a signed address takes no login
            return
        content = bytearray()
        while len(content) < length:
            piece = self.rfile.read(min(PIECE, length - len(content)))
            content += piece
            is_enough = account.break_after is not None and len(content) >= account.break_after
            if not piece or (is_enough and account.breaks > 0):
                account.breaks -= 1
                self.close_connection = True
                self.connection.close()
                return
        assert hashlib.sha256(content).hexdigest() == oid
        account.objects[oid] = bytes(content)
        self._answer(200, {})

    def _create(self, said: dict[str, Any]) -> None:
        account: Account = self.hub.account
        repo = f"{said.get('organization') or account.name}/{said['name']}"
        if repo in self.hub.models or repo in account.hidden:
            self._answer(409, {"error": "You already created this model repo"})
        elif repo.partition("/")[0] not in account.owns:
            self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        else:
            folder = self._folder(repo)
            (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
            self.hub.add(repo, folder)
            if said.get("visibility") == "private" or said.get("private"):
                account.private.add(repo)
            self._answer(200, {"url": f"{self.hub.url}/{repo}"})

    def _may_write(self, repo: str) -> bool:
        if repo not in self.hub.models:
            self._answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        elif repo.partition("/")[0] not in self.hub.account.owns:
            self._answer(403, {"error": "Forbidden: you must use a token with write permission"})
        else:
            return True
        return False

    def _preupload(self, said: dict[str, Any]) -> None:
        modes = [
            {"path": file["path"], "uploadMode": "lfs" if file["size"] >= LARGE else "regular", "shouldIgnore": False}
            for file in said["files"]
        ]
        self._answer(200, {"files": modes})

    def _batch(self, said: dict[str, Any]) -> None:
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
        objects = [
            {"oid": each["oid"], "size": each["size"]}
            | (
                {}
                if each["oid"] in self.hub.account.objects
                else {"actions": {"upload": {"href": f"{elsewhere}/objects/{each['oid']}"}}}
            )
            for each in said["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        head = lines[0]["value"]
        if head.get("parentCommit") not in (None, self.hub.models[repo].sha):
            self._answer(412, {"error": "The branch has changed"})
            return
        folder = self._folder(repo)
        for line in lines[1:]:
            value = line["value"]
            file = folder / value["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            is_large = line["key"] == "lfsFile"
            file.write_bytes(self.hub.account.objects[value["oid"]] if is_large else base64.b64decode(value["content"]))
        model = self.hub.add(repo, folder)
        self.hub.account.commits.append({"repo": repo, **head})
        if self.hub.account.is_silent:
            self.close_connection = True
            self.connection.close()
            return
        self._answer(200, {"success": True, "commitOid": model.sha, "commitUrl": f"{self.hub.url}/{repo}/commit/1"})

    def _folder(self, repo: str) -> Path:
        assert self.hub.account.place is not None
        folder: Path = self.hub.account.place / repo.replace("/", "--")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _log(self, path: str) -> None:
        self.hub.note(self.command, path, self.headers)

    def _answer(self, status: int, said: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
