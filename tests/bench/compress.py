"""``make bench-compress``, ``python -m tests.bench.compress [--only ROW] [--dir DIR]``: what compressing costs.

Each row is measured in a process of its own, beside its peer and what the machine itself can do, and written into
COMPRESS.md; with ``--only`` the other rows there stay.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.bench import llama
from tests.bench.measure import memory_bandwidth, reading, writing

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("COMPRESS.md")
HEADER = ("work", "here", "peer, and how much slower", "limit, and its multiple here", "must", "goal", "load before")
SPACE = 20 << 30
"""Bytes that the large model, its compressed copy and the disk's own test need."""


@dataclass(frozen=True)
class Row:
    """A line of the table; ``load`` is what else ran on the machine, processes in the last minute."""

    work: str
    here: str
    peer: str
    limit: str
    must: str
    goal: str
    load: float

    def __str__(self) -> str:
        cells = (self.work, self.here, self.peer, self.limit, self.must, self.goal, f"{self.load:.1f}")
        return f"| {' | '.join(cells)} |"


def measured(module: str, *arguments: str) -> dict[str, Any]:
    """Return what a benchmark of its own process printed."""
    command = [sys.executable, "-W", "ignore", "-m", f"tests.bench.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@cache
def bandwidth() -> float:
    return memory_bandwidth()


def against_memory(seconds: float, nbytes: float) -> str:
    """Return the time that moving these bytes once takes, and how many times that ``seconds`` is."""
    least = nbytes / bandwidth()
    return f"{least * 1e3:.0f} ms ({nbytes / 1e6:.0f} MB at {bandwidth() / 1e9:.0f} GB/s): {seconds / least:.0f}x"


def load() -> float:
    return os.getloadavg()[0]


def configuration(_: Path) -> list[Row]:
    before = load()
    ours = measured("compress_builtin", "configuration")
    rows = []
    for kind, must, goal in (("openvino", "8x", "30x"), ("torch", "2.5x", "8x (about 0.35 s)")):
        peer = measured("compress_peer", kind)
        rows.append(
            Row(
                f"one configuration, against NNCF on {kind}",
                f"{ours['seconds']:.2f} s",
                f"{peer['seconds']:.1f} s, {peer['seconds'] / ours['seconds']:.1f}x",
                against_memory(ours["seconds"], ours["bytes"]),
                must,
                goal,
                before,
            )
        )
    return rows


def survey(_: Path) -> list[Row]:
    before = load()
    ours = measured("compress_builtin", "survey")
    limit = against_memory(ours["seconds"], ours["bytes"])
    here, first = f"{ours['seconds']:.2f} s", f"{ours['first'] * 1e3:.0f} ms"
    return [
        Row("full survey", here, "none has one", limit, "12 s", "4 s", before),
        Row("its first row", first, "none has one", "–", "500 ms", "300 ms", before),
    ]


def move(_: Path) -> list[Row]:
    before, rows = load(), []
    for name in ("move", "move_many"):
        ours = measured("compress_builtin", name)
        here = (
            f"{ours['seconds'] * 1e3:.0f} ms (median {ours['median'] * 1e3:.0f} ms), {ours['sent'] / 1e3:.0f} kB sent"
        )
        work = f"a control moved, {ours['weights']:,} weights, 95th percentile"
        rows.append(Row(f"{work}: the server's part", here, "none has one", "–", "–", "–", before))
        page = measured("compress_page", name)
        here = f"{page['seconds'] * 1e3:.0f} ms (median {page['median'] * 1e3:.0f} ms)"
        rows.append(Row(f"{work}: from the hand to the page", here, "none has one", "–", "300 ms", "150 ms", before))
    return rows


def large(parent: Path) -> list[Row]:
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / "llama-7b-random"
    is_new = not folder.exists()
    if shutil.disk_usage(parent).free < (SPACE if is_new else SPACE // 3):
        raise SystemExit(f"{parent} has not the {SPACE / 1e9:.0f} GB that the large model needs; take another --dir")
    try:
        shards = llama.make(folder)
        before = load()
        ours = measured("compress_large", str(folder), str(parent / "compressed.safetensors"))
        read = reading(shards)
        written = writing(parent / "written", ours["bytes"])
    finally:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
    once = read + written
    nbytes = sum(slot.nbytes for slot in llama.slots().values())
    allowed, wished = (extra + times * ours["largest"] for extra, times in ((1e9, 3), (600e6, 2)))
    return [
        Row(
            "Llama of 7B from a cold disk, INT4_ASYM 128",
            f"{ours['seconds']:.1f} s",
            "–",
            f"{once:.1f} s ({nbytes / 1e9:.1f} GB read in {read:.1f}, {ours['bytes'] / 1e9:.1f} written in "
            f"{written:.1f}): {ours['seconds'] / once:.2f}x",
            "3x",
            "1.5x",
            before,
        ),
        Row(
            "its peak of anonymous memory",
            f"{ours['peak'] / 1e6:.0f} MB",
            "–",
            f"largest tensor {ours['largest'] / 1e6:.0f} MB",
            f"{allowed / 1e6:.0f} MB",
            f"{wished / 1e6:.0f} MB",
            before,
        ),
    ]


ROWS: dict[str, Callable[[Path], list[Row]]] = {
    "configuration": configuration,
    "survey": survey,
    "move": move,
    "large": large,
}


def kept() -> dict[str, str]:
    """Return the table's lines as they stand in the file, by their work."""
    lines = FILE.read_text().splitlines() if FILE.exists() else []
    return {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}


def page(rows: dict[str, str]) -> str:
    rows = {work: line for work, line in rows.items() if work not in ("work", "---")}
    lines = [
        "# What compressing costs",
        "",
        "`make bench-compress` writes this. Medians of five after one that does not count; NNCF's of three, the large",
        "model once. Both sides have the same two cores; NNCF gets a model that is in memory, and so do we. The limit",
        "is the time that moving the bytes once takes: memory read by two threads, the disk read past the system's",
        "cache and written until it has everything, all in the same run. What the system's cache holds of the large",
        "model is dropped before.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{' --- |' * len(HEADER)}",
        *rows.values(),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ROWS, help="run these rows alone")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="where the large model is made")
    arguments = parser.parse_args()
    rows = kept()
    for name in [arguments.only] if arguments.only else ROWS:
        print(f"{name} …", file=sys.stderr)
        for row in ROWS[name](arguments.dir):
            rows[row.work] = str(row)
            print(row, flush=True)
        FILE.write_text(page(rows))


if __name__ == "__main__":
    main()
