"""Strangers at a running page, without a browser: what one asks for costs others nothing, and gives nothing away."""

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from studio.base.text import text
from tests.conftest import served

SECONDS = 300
UPLOAD = 1 << 30


class Stranger:
    """Somebody with a browser of their own, or a program that plays one."""

    def __init__(self, address: str, session: str) -> None:
        self.address, self.session = address, session
        self.cookie = self.ask("")[1].get("set-cookie", "").partition(";")[0]
        config = json.loads(self.ask("config")[2])
        self.functions = {each["api_name"]: each["id"] for each in config["dependencies"]}

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the headers and the body of an answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if getattr(self, "cookie", ""):
            named["Cookie"] = self.cookie
        sent = None if body is None else json.dumps(body).encode()
        if sent is not None:
            named["Content-Type"] = "application/json"
        request = urllib.request.Request(self.address + path, sent, named)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {key.lower(): value for key, value in error.headers.items()}, error.read()

    def join(self, name: str, *inputs: object, session: str = "") -> tuple[int, str]:
        """Call a function of the page; return the status, and the number of the call or what was said instead."""
        body = {"data": inputs, "fn_index": self.functions[name], "session_hash": session or self.session}
        status, _, said = self.ask("gradio_api/queue/join", body)
        return status, json.loads(said).get("event_id") or json.loads(said)["detail"]

    def hears(self) -> str:
        """Return all that the page says until nothing of this session is left to say."""
        return self.ask(f"gradio_api/queue/data?session_hash={self.session}")[2].decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A page whose visitors are all strangers, though they come from this machine; it opens folders for its owner."""
    settings = {"STUDIO_ACCESS": "public", "STUDIO_METRICS_PORT": "0", "STUDIO_LOCAL_FILES": "1"}
    with served(folder, STUDIO_LOG=str(folder / "jobs.jsonl"), **settings) as found:
        yield found


def test_one_visitor_cannot_fill_the_queue(address: str) -> None:
    greedy, other = Stranger(address, "greedy"), Stranger(address, "other")
    statuses: Counter[int] = Counter()

    def press(count: int) -> None:
        for _ in range(count):
            statuses[greedy.join("compress", None, "en")[0]] += 1

    threads = [threading.Thread(target=press, args=(33,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    mine = [other.join("visit")[0] for _ in range(3)]
    for thread in threads:
        thread.join()
    assert mine == [200] * 3
    assert set(statuses) <= {200, 429}
    assert other.join("visit")[0] == 200


def test_nobody_listens_in_on_or_ends_what_is_anothers(address: str) -> None:
    one, other = Stranger(address, "one"), Stranger(address, "another")
    status, call = one.join("visit")
    assert status == 200
    body = {"session_hash": "one", "fn_index": one.functions["visit"], "event_id": call}
    assert other.ask("gradio_api/queue/data?session_hash=one")[0] == 403
    assert other.ask("gradio_api/heartbeat/one")[0] == 403
    assert other.ask(f"gradio_api/call/visit/{call}")[0] == 403
    assert other.ask("gradio_api/cancel", body)[0] == 403
    assert other.ask("gradio_api/cancel", body | {"session_hash": "another"})[0] == 403
    assert other.join("visit", session="one")[0] == 403
    assert '"process_completed"' in one.hears()


def test_local_files_are_not_for_strangers(address: str, tiny_model: Callable[[str], Path]) -> None:
    """One of them is a model's: the answer is the same whether there is something or not."""
    stranger = Stranger(address, "curious")
    assert stranger.join("visit")[0] == 200
    stranger.hears()
    for path in (str(tiny_model("llama")), "/no/such/folder"):
        assert stranger.join("open_model", None, "en", path)[0] == 200
        assert text("error.bad_model_name_page", model=path) in stranger.hears()


@pytest.mark.parametrize("name", ["Host", "Origin"])
def test_another_sites_page_gets_nothing(address: str, name: str) -> None:
    stranger = Stranger(address, f"rebound-{name}")
    foreign = {"Host": "evil.example", "Origin": "http://evil.example"}[name]
    for path in ("config", "gradio_api/info", "gradio_api/queue/data?session_hash=a", "gradio_api/file=/etc/passwd"):
        status, _, said = stranger.ask(path, **{name: foreign})
        assert status in (403, 421)
        assert len(said) < 500
        assert b"evil.example" in said


def test_an_upload_of_a_gigabyte_is_cut_off(address: str, folder: Path) -> None:
    parts = urlsplit(address)
    assert parts.hostname is not None
    before = held_in(folder / "gradio")
    for how in (f"Content-Length: {UPLOAD}", "Transfer-Encoding: chunked"):
        sent = 0
        with socket.create_connection((parts.hostname, parts.port or 80), timeout=SECONDS) as line:
            head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {parts.netloc}\r\n{how}\r\n"
            line.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
            piece = b"x" * 65_536
            try:
                while sent < UPLOAD:
                    line.sendall(b"10000\r\n" + piece + b"\r\n" if "chunked" in how else piece)
                    sent += len(piece)
            except OSError:
                pass
        assert sent < UPLOAD / 20
    assert held_in(folder / "gradio") == before


def held_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_server_says_that_it_is_well_and_the_owner_hears_what_ran(address: str, folder: Path) -> None:
    stranger = Stranger(address, "watched")
    status, _, said = stranger.ask("health")
    well: dict[str, Any] = json.loads(said)
    assert (status, well["status"], well["workers"]) == (200, "ok", True)
    assert stranger.join("visit")[0] == 200
    stranger.hears()
    assert stranger.join("open_model", None, "en", "../nothing")[0] == 200
    stranger.hears()
    [line] = [each for each in (folder / "server.log").read_text().splitlines() if each.startswith("Metrics: ")]
    counters = urlsplit(line.removeprefix("Metrics: "))
    assert counters.hostname is not None
    owners = http.client.HTTPConnection(counters.hostname, counters.port, timeout=SECONDS)
    owners.request("GET", counters.path)
    told = owners.getresponse().read().decode()
    owners.close()
    assert 'studio_jobs_total{kind="open",outcome="refused"} ' in told
    assert "studio_workers_up 1.0" in told
    lines = [json.loads(each) for each in (folder / "jobs.jsonl").read_text().splitlines()]
    assert ("open", "refused", "bad_model_name_page") in {
        (each["kind"], each["outcome"], each.get("reason")) for each in lines
    }
    assert "nothing" not in (folder / "jobs.jsonl").read_text()
