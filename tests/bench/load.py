"""``make bench-load``: many visitors at one page of this machine, into tests/bench/LOAD.md.

The visitors are those of ``tests/soak.py``: they open models, move controls, compress, calibrate, chat, measure, export
and leave. One more asks for the page and moves a control every second, and its times count. Memory and disk are looked
at once a second; what they are after a warm-up of a third of the time is compared with what they are at the end. All of
it is bound to loopback and ends after the minutes that were asked for.
"""

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from studio.base.units import format_bytes
from tests.bench.beside import kept
from tests.bench.measure import machine
from tests.soak import ANSWER, CHOICES, Findings, Visitor, log_faults, memory_of, serving, tiny_models, visits

FILE = Path(__file__).with_name("LOAD.md")
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
    visitor = Visitor(address, [model], findings, seed=-1)
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


def load(minutes: float, sessions: int, seed: int, is_tiny: bool = False) -> tuple[Findings, Seen]:
    """Let visitors come and go for so many minutes; return what they met and what was measured meanwhile."""
    findings, seen = Findings(), Seen()
    with tempfile.TemporaryDirectory() as place:
        folder, cache = Path(place), Path(place) / "cache"
        models = [*([] if is_tiny else ["builtin", "builtin"]), *tiny_models(folder)]
        with serving(folder, "", cache) as (address, server, log):
            began = time.monotonic()
            until = began + 60 * minutes
            threads = [
                threading.Thread(target=visits, args=(address, models, findings, seed + i, until), daemon=True)
                for i in range(sessions)
            ]
            threads.append(
                threading.Thread(target=watch, args=(address, models[0], findings, seen, until), daemon=True)
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
                seen.disk.append((share, on_disk([cache, folder / "gradio"])))
            waiting = sum(thread.is_alive() for thread in threads)
            if waiting and server.poll() is None:
                findings.faults.append(f"{waiting} visitors were never answered")
        findings.faults += log_faults(log)
    return findings, seen


def table(minutes: float, sessions: int, findings: Findings, seen: Seen, shares: tuple[float, float]) -> str:
    """Return the figures in Markdown, beside what is asked."""
    memory = [at(seen.memory, when) for when in (WARM, END)]
    disk = [at(seen.disk, when) for when in (WARM, END)]
    rows = [
        ("errors that are not a clear refusal", f"{len(findings.faults)}", "0", "0"),
        ("memory after warm-up, and at the end", _pair(memory), "flat within 10 %", "the same"),
        ("disk after warm-up, and at the end", _pair(disk), "within its budget", "the same"),
        ("the page, 95th percentile", f"{percentile(seen.page):.2f} s", "1 s", "0.3 s"),
        ("a moved control, 95th percentile", f"{percentile(seen.moved):.2f} s", "1 s", "0.3 s"),
        ("first token, median", f"{percentile(findings.first_tokens, 0.5):.1f} s", "", ""),
        ("first token, 95th percentile", f"{percentile(findings.first_tokens):.1f} s", "10 s", "3 s"),
        ("answering beside two busy processes, of the quiet speed", f"{shares[0]:.2f}", "0.4", "0.6"),
        ("the same beside two that stand back, as long jobs do", f"{shares[1]:.2f}", "", ""),
    ]
    done = ", ".join(f"{name} {count}" for name, count in sorted(findings.done.items(), key=lambda each: -each[1]))
    lines = [
        "# Many visitors at one page",
        "",
        f"`make bench-load`: {sessions} sessions for {minutes:g} minutes, on {machine()}.",
        "",
        "| | found | must | goal |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"{sum(findings.done.values())} requests: {done}; {len(findings.first_tokens)} answers began.",
        "",
    ]
    return "\n".join(lines)


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
    parser.add_argument("--out", type=Path, default=FILE)
    asked = parser.parse_args()
    shares = kept()
    findings, seen = load(asked.minutes, asked.sessions, asked.seed, asked.tiny)
    said = table(asked.minutes, asked.sessions, findings, seen, shares)
    asked.out.write_text(said)
    print(said)
    for fault in findings.faults[:50]:
        print("FAULT", fault)
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
