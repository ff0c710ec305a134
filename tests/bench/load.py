"""``make bench-load``: many visitors at one page of this machine, into tests/bench/LOAD.md and docs/security.md.

The visitors are those of ``tests/soak.py``: they open models, move controls, compress, calibrate, chat, measure, export
and leave. They come as strangers, each from an address of their own (a proxy says so), with the limits that a page has
by default; the small models they get from a Hub on this machine. Two more come who only look: one asks for the page and
moves a control every second, the other asks for a short answer, again and again. Memory and disk are looked at once a
second; what they are after a warm-up of a third of the time is compared with what they are at the end. All of it is
bound to loopback and ends after the minutes that were asked for. What other commands found (``rows.py``) is in the
table, too.
"""

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from studio.base.units import format_bytes
from tests.bench.beside import kept
from tests.bench.measure import machine
from tests.bench.rows import Row, between, markdown, noted
from tests.conftest import ROOT
from tests.hub_server import LocalHub
from tests.soak import (
    ANSWER,
    CHOICES,
    Findings,
    Visitor,
    log_faults,
    memory_of,
    serving,
    somewhere,
    tiny_models,
    visits,
)

FILE, PAGE = Path(__file__).with_name("LOAD.md"), ROOT / "docs" / "security.md"
STRANGERS = {"STUDIO_PROXY": "1", "STUDIO_ACCESS": "public", "STUDIO_LOCAL_FILES": "0"}
BUDGET_GB = 1.0
"""Of models that are kept: the built-in one takes a quarter of it."""
NOTED = {"killed": "killed", "hostile": "hostile", "fuzzed": "fuzz", "crafted": "hostile"}
"""Rows that other commands find, and which ``make`` does."""
EVERY = 1.0
"""Seconds between two looks."""
WARM, END = 1 / 3, 0.9
"""Shares of the time: memory and disk are those of the looks in the tenth behind each."""


@dataclass
class Seen:
    """What was measured while the visitors were there."""

    page: list[float] = field(default_factory=list)
    """Seconds."""
    moved: list[float] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    """The share of the time that had passed, and bytes."""
    disk: list[tuple[float, int]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    """Bytes of models that are kept, downloads included."""
    spoken: list[float] = field(default_factory=list)
    """Seconds to the first token of the visitor who does nothing but ask."""


def percentile(seconds: Sequence[float], share: float = 0.95) -> float:
    """Return the value that ``share`` of all are not above; NaN where there is none."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def at(looks: Sequence[tuple[float, int]], share: float) -> float:
    """Return the median of what was seen in the tenth of the time that begins at ``share``; NaN where nothing was."""
    found = [value for when, value in looks if share <= when < share + 0.1]
    return statistics.median(found) if found else float("nan")


def on_disk(folders: Sequence[Path]) -> int:
    """Return the bytes of all files; those that are removed meanwhile count nothing."""
    total = 0
    for folder in folders:
        for file in folder.rglob("*"):
            try:
                total += 0 if file.is_symlink() or not file.is_file() else file.stat().st_size
            except OSError:
                continue
    return total


def watch(address: str, model: str, findings: Findings, seen: Seen, until: float) -> None:
    """Ask for the page, and move a control, every second."""
    visitor = Visitor(address, [model], findings, seed=-1, far=somewhere(random.Random(-1)))
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            with urllib.request.urlopen(address, timeout=ANSWER) as answer:
                answer.read()
        except OSError as error:
            findings.faults.append(f"the page: {error}")
        seen.page.append(time.monotonic() - began)
        began = time.monotonic()
        visitor.choose(random.choice(CHOICES))
        seen.moved.append(time.monotonic() - began)
        time.sleep(max(0.0, EVERY - (time.monotonic() - began)))
    visitor.leave()


def speak(address: str, model: str, findings: Findings, seen: Seen, until: float) -> None:
    """Compress a small model once, then ask for eight tokens every few seconds."""
    own = Findings()
    visitor = Visitor(address, [model], own, seed=-2, far=somewhere(random.Random(-2)))
    visitor.choose(CHOICES[0])
    visitor.call("queue_compress")
    visitor.call("compress")
    while time.monotonic() < until or not own.done["talk"]:  # once at least, however short the time
        visitor.call("queue_talk")
        visitor.call("talk", "one two three", "", 16, 8, 0.0, 1.0, 0, 1.0, 1)
        time.sleep(3 * EVERY)
        if own.faults:
            break
    visitor.leave()
    seen.spoken += own.first_tokens
    findings.done.update(own.done)
    findings.faults += own.faults
    findings.refused.update(own.refused)


@contextmanager
def hub(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve tiny models as repositories; give the address and their names."""
    with LocalHub() as server:
        names = []
        for path in map(Path, tiny_models(folder / "models")):
            names.append(f"owner/{path.name}")
            server.add(names[-1], path)
        yield server.url, names


def load(minutes: float, sessions: int, seed: int, is_tiny: bool = False) -> tuple[Findings, Seen]:
    """Let visitors come and go for so many minutes; return what they met and what was measured meanwhile."""
    findings, seen = Findings(), Seen()
    with tempfile.TemporaryDirectory() as place:
        folder, cache, own = Path(place), Path(place) / "cache", Path(place) / "huggingface"
        with hub(folder) as (url, names):
            models = [*([] if is_tiny else ["builtin", "builtin"]), *names]
            more = STRANGERS | {"HF_ENDPOINT": url, "HF_HOME": str(own), "STUDIO_CACHE_GB": str(BUDGET_GB)}
            with serving(folder, "", cache, **more) as (address, server, log):
                began = time.monotonic()
                until = began + 60 * minutes
                threads = [
                    threading.Thread(
                        target=visits, args=(address, models, findings, seed + i, until, True), daemon=True
                    )
                    for i in range(sessions)
                ]
                for look, model in ((watch, models[0]), (speak, names[0])):
                    threads.append(
                        threading.Thread(target=look, args=(address, model, findings, seen, until), daemon=True)
                    )
                for thread in threads:
                    thread.start()
                process = psutil.Process(server.pid)
                while any(thread.is_alive() for thread in threads) and time.monotonic() < until + ANSWER:
                    time.sleep(EVERY)
                    if server.poll() is not None:
                        findings.faults.append(f"the server ended with {server.returncode}")
                        break
                    share = (time.monotonic() - began) / (60 * minutes)
                    seen.memory.append((share, memory_of(process)[0]))
                    seen.disk.append((share, on_disk([cache, own, folder / "gradio"])))
                    seen.kept.append(on_disk([cache / "prepared", own / "hub"]))
                waiting = sum(thread.is_alive() for thread in threads)
                if waiting and server.poll() is None:
                    findings.faults.append(f"{waiting} visitors were never answered")
                findings.faults += log_faults(log)
    return findings, seen


def rows_of(findings: Findings, seen: Seen, shares: tuple[float, float]) -> list[Row]:
    """Return the figures, beside what is asked."""
    memory = [at(seen.memory, when) for when in (WARM, END)]
    disk = [at(seen.disk, when) for when in (WARM, END)]
    most, budget = max(seen.kept, default=0), int(BUDGET_GB * 1e9)
    faults = len(findings.faults)
    is_flat = memory[1] <= 1.1 * memory[0]
    return [
        Row("errors that are not a clear refusal", f"{faults}", "0", "0 in 60 minutes, 40 sessions", faults == 0),
        Row("memory after warm-up, and at the end", _pair(memory), "flat within 10 %", "", is_flat),
        Row("disk after warm-up, and at the end", _pair(disk), "", ""),
        Row(
            "models kept on it, at most", format_bytes(most), f"within their budget, {format_bytes(budget)}", "",
            most <= budget,
        ),
        _within("the page, 95th percentile", seen.page, 1.0, 0.3),
        _within("a moved control, 95th percentile", seen.moved, 1.0, 0.3),
        _within("a visitor's first token while others compress, calibrate, measure, 95th percentile",
                findings.first_beside, 10.0, 3.0),
        Row("the same, median", _seconds(percentile(findings.first_beside, 0.5)), "", ""),
        Row("the same of one who does nothing but ask, whoever works, 95th percentile",
            _seconds(percentile(seen.spoken)), "", ""),
        Row("decode while another process keeps both cores busy, over the quiet speed", f"{shares[0]:.2f}x", "0.4x",
            "0.6x", shares[0] >= 0.4, shares[0] >= 0.6),
        Row("the same beside two that stand back, as long jobs do", f"{shares[1]:.2f}x", "", ""),
    ]  # fmt: skip


def absent(name: str) -> Row:
    """Return the row of what its command has not found yet."""
    return Row(f"{name}: `make {NOTED[name]}`", "not measured", "")


def _within(what: str, seconds: Sequence[float], must: float, goal: float) -> Row:
    found = percentile(seconds)
    return Row(what, _seconds(found), f"{must:g} s", f"{goal:g} s", found <= must, found <= goal)


def _seconds(found: float) -> str:
    return "–" if found != found else f"{found:.2f} s"


def said(minutes: float, sessions: int, findings: Findings, seen: Seen, table: str) -> str:
    """Return LOAD.md."""
    counts = [_counts(each) for each in (findings.done, findings.refused)]
    began = len(findings.first_tokens) + len(seen.spoken)
    lines = [
        "# Many visitors at one page",
        "",
        f"`make bench-load`: {sessions} sessions for {minutes:g} minutes, on {machine()}.",
        "",
        table,
        f"{sum(findings.done.values())} requests: {counts[0]}. Refused with a sentence: {counts[1] or 'none'}. "
        f"{began} answers began.",
        "",
    ]
    return "\n".join(lines)


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counted.items(), key=lambda each: -each[1]))


def _pair(values: Sequence[float]) -> str:
    before, after = values
    if not before or before != before or after != after:
        return "–"
    return f"{format_bytes(int(before))}, {format_bytes(int(after))} ({after / before - 1:+.0%})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="only tiny models: to see that it runs")
    parser.add_argument("--out", type=Path, default=FILE, help="another place than LOAD.md leaves the docs as they are")
    asked = parser.parse_args()
    shares = kept()
    findings, seen = load(asked.minutes, asked.sessions, asked.seed, asked.tiny)
    others = noted()
    table = markdown([*rows_of(findings, seen, shares), *(others.get(name, absent(name)) for name in NOTED)])
    asked.out.write_text(said(asked.minutes, asked.sessions, findings, seen, table))
    if asked.out == FILE:
        PAGE.write_text(between(PAGE.read_text(), table))
    print(asked.out.read_text())
    for fault in findings.faults[:50]:
        print("FAULT", fault)
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
