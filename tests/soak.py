"""``python -m tests.soak --minutes 60 --visitors 8``: visitors at random at one page, until something gives way.

Each opens a model, moves controls, compresses, chats, measures drift, stops, leaves and comes back, some in two tabs.
What may not be: a server that ends, a worker that ends, a page that says "unexpected", a message in the server's log
that is an error, or a request that is never answered. With ``--sanitizer address`` the compiled code stops at the first
access it should not make. Exits with 1 where something was found.
"""

import argparse
import contextlib
import json
import os
import queue
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from studio.planning.choice import OPTIONS, Choice
from tests import sanitized
from tests.conftest import ROOT, SHARED, TEMPLATE, save_tiny_model

ANSWER = 1500
"""Seconds a request may take: eight visitors share two cores, perhaps under a sanitizer."""
BAD = re.compile(
    r"Traceback|ERROR|Sanitizer|runtime error:|terminate called|Segmentation|Aborted|worker process has ended", re.I
)
"""Lines of the server's log that nobody should find there."""
EVENT = re.compile(rb'"event_id": ?"([0-9a-f]+)"')
BUG = re.compile(r"(?i:unexpected|a bug in)|\bSIG[A-Z]{3,4}\b")
"""What no page should say."""
TALKS, FIRST = ("talk", "regenerate"), "first token"
"""What asks for an answer, and the words of the figures beneath one that has begun."""
LONG = ("compress", "measure", "measure_drift", "export")
"""What keeps a machine busy for others."""
AGAIN = 5.0
"""Seconds at most until a visitor who came too often tries something else."""
QUESTIONS = ("What is the capital of France?", "Count to ten.", "one two three", "Tell me about rivers. " * 30)
CHOICES = (
    Choice.of("int4_asym", 64, 1.0),
    Choice.of("int4_sym", 32, 0.8),
    Choice.of("nf4", 64, 0.5, "int8_sym"),
    Choice.of("int8_asym", -1, 1.0),
    Choice.of("int5_sym", 32, 1.0),
    Choice.of("int4_asym", 64, 0.8, sensitivity="damage"),
    Choice.of("int4_asym", 64, 1.0, method="gptq"),
)
WHO = (None, "en")
"""What every function of the page but the first takes before its own: the session, and a language."""


@dataclass
class Findings:
    """What was done, and what went wrong."""

    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    waiting: dict[int, tuple[str, float]] = field(default_factory=dict)
    """Requests under way: what was asked, and when."""
    first_tokens: list[float] = field(default_factory=list)
    """Seconds from what was asked to the first token of its answer, as it reached the visitor."""
    first_beside: list[float] = field(default_factory=list)
    """The same of those alone beside which others' long work was under way."""
    refused: Counter[str] = field(default_factory=Counter)
    """What was asked too often, and answered with 429, a sentence and when to come again."""


class Visitor:
    """One tab of one visitor."""

    def __init__(
        self, address: str, models: list[str], findings: Findings, seed: int, cookie: str = "", far: str = ""
    ) -> None:
        """Come in; ``models`` are those to choose among, ``cookie`` what the tabs of one browser have in common.

        ``far``: the address of a visitor from elsewhere, as a proxy before the page says it.
        """
        self.cookie = cookie or new_cookie()
        self._headers = {"Cookie": self.cookie} | ({"X-Forwarded-For": far} if far else {})
        self._address, self._models, self._findings = address, models, findings
        self._random = random.Random(seed)
        self.key = uuid.uuid4().hex
        """Of this visit."""
        with self._open("config") as response:
            page = json.loads(response.read())
        functions = {each["api_name"]: each for each in page["dependencies"] if each["api_name"]}
        self._functions = {name: (each["id"], each["queue"]) for name, each in functions.items()}
        elements = {each["id"]: each["props"].get("elem_id") for each in page["components"]}
        fields = {option.slug: name for name, option in OPTIONS.items()}
        self._controls = [fields[elements[each]] for each in functions["choose"]["inputs"][len(WHO) :]]
        self._lock, self._is_wanted, self._has_left = threading.Lock(), threading.Event(), False
        self._heard: dict[str, queue.SimpleQueue[str]] = {}
        threading.Thread(target=self._listen, daemon=True).start()
        self._heart = _heartbeat(f"{address}gradio_api/heartbeat/{self.key}", self._headers)
        self.call("visit")
        self.call("open_model", self._random.choice(self._models))  # as a page does by itself

    def leave(self) -> None:
        with self._lock:
            self._has_left = True
            for heard in self._heard.values():  # a button pressed just before
                heard.put('"process_completed"')
        with contextlib.suppress(OSError):
            self._heart.close()

    def act(self) -> bool:
        """Do something; return whether the visitor stays."""
        acts: list[tuple[int, Callable[[], object]]] = [
            (3, lambda: self.call("open_model", self._random.choice(self._models))),
            (6, lambda: self.choose(self._random.choice(CHOICES))),
            (2, lambda: self.call("paint", self._random.choice(["weight", "output", "damage", "bits"]))),
            (3, lambda: self.call("measure", None)),
            (2, lambda: self.call("undo")),
            (6, self._compress),
            (10, self._chat),
            (4, self._drift),
            (2, lambda: self.call("clear")),
            (1, lambda: self.call("export")),
            (1, lambda: self.call("speak")),
        ]
        weights, things = zip(*acts, strict=True)
        self._random.choices(things, weights)[0]()
        return self._random.random() > 0.04

    def choose(self, choice: Choice) -> None:
        """Move the controls to a choice."""
        words = choice.words()
        self.call("choose", *(words[name] for name in self._controls))

    def _compress(self) -> None:
        self.call("queue_compress")
        self._perhaps_stopped("cancel", "compress")

    def _drift(self) -> None:
        self.call("queue_drift")
        self._perhaps_stopped("stop_drift", "measure_drift", often=1, within=20)

    def _chat(self) -> None:
        self.call("queue_talk")
        tokens = self._random.choice([8, 32, 100])
        rest = ["", 16, tokens, self._random.choice([0.0, 1.0]), 1.0, 0, 1.0, self._random.randrange(100)]
        name = self._random.choice(["talk", "talk", "talk", "regenerate"])
        self._perhaps_stopped("stop", name, self._random.choice(QUESTIONS), *rest)

    def _perhaps_stopped(self, stop: str, name: str, *inputs: object, often: float = 0.3, within: float = 8) -> None:
        """Call a long job; sometimes stop it, from what would be another button."""
        if self._random.random() < often:
            timer = threading.Timer(self._random.uniform(0.1, within), lambda: self.call(stop))
            timer.start()
        self.call(name, *inputs)

    def call(self, name: str, *inputs: object) -> None:
        """Call a function of the page, by the way that the page itself does, and read all it says."""
        me = threading.get_ident()
        self._findings.waiting[me] = name, time.monotonic()
        try:
            said = self._said(name, [] if name == "visit" else [*WHO, *inputs])
        except (OSError, ValueError, KeyError, queue.Empty) as error:
            if _is_refusal(error):
                self._findings.refused[name] += 1
                time.sleep(self._random.uniform(1, AGAIN))
                return
            self._findings.faults.append(f"{name}: {type(error).__name__}: {error}")
            return
        finally:
            self._findings.waiting.pop(me, None)
        self._findings.done[name] += 1
        found = BUG.search(said) or re.search(r'"success": ?false', said)
        if found is not None:
            where = found.start()
            self._findings.faults.append(f"{name}: the page says {said[max(0, where - 200) : where + 300]!r}")

    def _said(self, name: str, inputs: list[object]) -> str:
        number, is_queued = self._functions[name]
        body = {"data": inputs, "fn_index": number, "session_hash": self.key, "trigger_id": None}
        if not is_queued:
            return self._asked(f"run/{name}", body).decode()
        with self._lock:  # what the server says before the event is known here would be lost
            if self._has_left:
                return ""
            event = json.loads(self._asked("queue/join", body))["event_id"]
            heard = self._heard[event] = queue.SimpleQueue()
            self._is_wanted.set()
        said, asked, is_waiting = "", time.monotonic(), name in TALKS
        while True:
            message = heard.get(timeout=ANSWER)
            said += message
            if is_waiting and FIRST in message:
                self._note_first(time.monotonic() - asked)
                is_waiting = False
            if '"process_completed"' in message:
                return said

    def _note_first(self, seconds: float) -> None:
        self._findings.first_tokens.append(seconds)
        if any(name in LONG for name, _ in list(self._findings.waiting.values())):
            self._findings.first_beside.append(seconds)

    def _asked(self, path: str, body: dict[str, object]) -> bytes:
        with self._open(f"gradio_api/{path}", json.dumps(body).encode()) as response:
            answer: bytes = response.read()
        return answer

    def _open(self, path: str, body: bytes | None = None) -> Any:
        """Return the answer to a request of this visitor's browser, to be read as it comes."""
        headers = {"Content-Type": "application/json", **self._headers}
        return urllib.request.urlopen(urllib.request.Request(f"{self._address}{path}", body, headers), timeout=ANSWER)

    def _listen(self) -> None:
        """Hand what the server says to whoever waits for it; it ends a stream once it has no more to say."""
        while not self._has_left:
            self._is_wanted.wait(1)
            if not self._is_wanted.is_set():
                continue
            try:
                with self._open(f"gradio_api/queue/data?session_hash={self.key}") as stream:
                    for line in stream:
                        if line.startswith(b"data:") and (event := EVENT.search(line)):
                            self._hear(event[1].decode(), line.decode())
                        if self._has_left:
                            return
            except OSError:
                time.sleep(0.1)  # it ended just before something was asked

    def _hear(self, event: str, message: str) -> None:
        with self._lock:
            heard = self._heard.get(event)
            if '"process_completed"' in message:
                self._heard.pop(event, None)
                if not self._heard:
                    self._is_wanted.clear()
        if heard is not None:
            heard.put(message)


def new_cookie() -> str:
    """Return what the page calls a browser by: without one, all that come from one address are one visitor."""
    return f"studio_visitor_{secrets.token_hex(4)}={secrets.token_urlsafe(24)}"


def _is_refusal(error: BaseException) -> bool:
    """Return whether it is a clear one: too often, in one sentence, and when to come again."""
    if not isinstance(error, urllib.error.HTTPError) or error.code != 429:
        return False
    return bool(error.headers.get("Retry-After")) and bool(error.read().strip())


def somewhere(chance: random.Random) -> str:
    """Return an address that a visitor from elsewhere may have."""
    return f"8.{chance.randrange(1, 255)}.{chance.randrange(1, 255)}.{chance.randrange(1, 255)}"


def _heartbeat(url: str, headers: dict[str, str]) -> socket.socket:
    """Keep a connection open, as a tab does: the server takes its end for the visitor's leaving."""
    host, _, rest = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    heart = socket.create_connection((name, int(port)), timeout=ANSWER)
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    heart.sendall(f"GET /{rest} HTTP/1.1\r\nHost: {host}\r\n{''.join(lines)}Accept: text/event-stream\r\n\r\n".encode())
    return heart


def visits(address: str, models: list[str], findings: Findings, seed: int, until: float, is_far: bool = False) -> None:
    """Come, act, leave, and come again; every third visitor has two tabs. ``is_far``: from an address of their own."""
    chance = random.Random(seed)
    number = 0
    while time.monotonic() < until and len(findings.faults) < 50:
        number += 1
        try:
            cookie, count, far = new_cookie(), 1 + (seed % 3 == 0), somewhere(chance) if is_far else ""
            tabs = [Visitor(address, models, findings, chance.randrange(1 << 30), cookie, far) for _ in range(count)]
        except OSError as error:
            if _is_refusal(error):
                findings.refused["come"] += 1
                time.sleep(AGAIN)
                continue
            findings.faults.append(f"a visitor could not come: {error}")
            time.sleep(1)
            continue
        staying = list(tabs)
        while staying and time.monotonic() < until and len(findings.faults) < 50:
            tab = chance.choice(staying)
            if not tab.act():
                tab.leave()
                staying.remove(tab)
        for tab in staying:
            tab.leave()


@contextlib.contextmanager
def serving(
    folder: Path, sanitizer: str, cache: Path = SHARED, **more: str
) -> Iterator[tuple[str, "subprocess.Popen[str]", Path]]:
    """Run the page in a process of its own, with ``more`` in its environment; all that it writes is in ``folder`` and
    ``cache``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    environment = os.environ | {
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "STUDIO_CACHE_DIR": str(cache),
        "STUDIO_LOCAL_FILES": "1",
        **more,
    }
    if sanitizer:
        sanitized.build(sanitizer)
        environment |= sanitized.environment(sanitizer)
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "studio", "serve", "--port", str(port)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stream, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        said = server.stdout.readline()
        address = re.search(r"http://\S+", said)
        if address is None:
            sys.exit(f"the server did not start: {said}{log.read_text()}")
        try:
            yield address[0].replace("localhost", "127.0.0.1"), server, log
        finally:
            server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(60)
            server.kill()


def memory_of(server: psutil.Process) -> tuple[int, int]:
    """Return the bytes that the server and its children have to themselves, and how many children there are."""
    children = server.children(recursive=True)
    total = 0
    for process in [server, *children]:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().uss
    return total, len(children)


def tiny_models(folder: Path) -> list[str]:
    """Make models that take no time, and return their names."""
    models = []
    for name in ("llama", "gemma3_text", "gpt2"):
        save_tiny_model(name, folder / name)
        (folder / name / "chat_template.jinja").write_text(TEMPLATE)
        models.append(str(folder / name))
    return models


def log_faults(log: Path) -> list[str]:
    """Return what nobody should find in the server's log."""
    bad = [line for line in log.read_text(errors="replace").splitlines() if BAD.search(line)]
    return [f"log: {line[:300]}" for line in bad[:20]]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="only tiny models: a sanitizer is slow")
    parser.add_argument("--sanitizer", default="", choices=["", *sanitized.LIBRARIES])
    parser.add_argument("--keep", type=Path, help="where to leave the server's log")
    asked = parser.parse_args()
    findings = Findings()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        models = ([] if asked.tiny else ["builtin", "builtin"]) + tiny_models(folder)
        with serving(folder, asked.sanitizer) as (address, server, log):
            until = time.monotonic() + 60 * asked.minutes
            threads = [
                threading.Thread(target=visits, args=(address, models, findings, asked.seed + i, until), daemon=True)
                for i in range(asked.visitors)
            ]
            for thread in threads:
                thread.start()
            process, said = psutil.Process(server.pid), time.monotonic()
            while any(thread.is_alive() for thread in threads) and time.monotonic() < until + 2 * ANSWER:
                time.sleep(1)
                if server.poll() is not None:
                    findings.faults.append(f"the server ended with {server.returncode}")
                    break
                if time.monotonic() - said > 60:
                    said = time.monotonic()
                    nbytes, children = memory_of(process)
                    count = sum(findings.done.values())
                    long = [(name, round(said - at)) for name, at in list(findings.waiting.values()) if said - at > 60]
                    print(f"{count} requests, {nbytes >> 20} MB, {children} children, waiting {long}", flush=True)
            else:
                waiting = sum(thread.is_alive() for thread in threads)
                if waiting:
                    findings.faults.append(f"{waiting} visitors were never answered")
        findings.faults += log_faults(log)
        if asked.keep is not None:
            asked.keep.write_text(log.read_text(errors="replace"))
    print(dict(findings.done.most_common()))
    for fault in findings.faults[:50]:
        print("FAULT", fault)
    print(f"{sum(findings.done.values())} requests, {len(findings.faults)} faults")
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
