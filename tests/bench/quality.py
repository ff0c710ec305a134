"""``make bench-quality TEXT=file``: KL divergence, bytes and seconds of our methods and our peers', into QUALITY.md.

The dithered model (``quality_data``), 16 windows of 256 tokens for calibration (more, of the same part, where a method
of ours asks for more: ``two_sided`` 32, ``distilled`` 341), 24 of 512 to be judged on, from parts of the text that do
not overlap. Embedding and head are at 8 bits. What is judged is the packed result: its codes, zero
points and stored scales, in fp32 against the fp32 original. Each row is a process of its own that compresses on two
cores (``quality_row``) and is kept in ``--dir``: only rows that are not there are made, ``--again`` makes all.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.quality_peers import PEERS
from tests.bench.quality_row import NOT_INSTALLED, ROWS, Row

FILE = Path(__file__).with_name("QUALITY.md")
LONGEST = 25 * 60
"""Seconds that a row may take, what it is judged in included."""
BITS = 4.34
"""The issue of quality speaks of blocks at this many bits a weight or fewer."""
LEAN, FIFTH = 4.301, 5.067
"""And the issue of choosing at these."""
NNCF, SLOWER = "NNCF AWQ + GPTQ + scale estimation", 3
HEADER = "| method | layout | loads in | bits a block weight | seconds | KLD | median | p99 | same top | perplexity |"
INTRO = """# What compressing loses

`make bench-quality` wrote this; the protocol stands in `quality.py`. Judged on the {split} part of the text, whose
perplexity for the original is {original:.2f}. ± is the standard error over 24 windows of 512 tokens. Seconds are of two
cores of: {machines}; calibration is counted, tokenizing and converting the model to the peer's format is not.
"""


def made(name: str, options: argparse.Namespace) -> Row | str:
    """Return a row, or why there is none."""
    file: Path = options.dir / "rows" / options.split / f"{''.join(c if c.isalnum() else '_' for c in name)}.json"
    if options.kept and not file.is_file():
        return "not measured"
    if options.again or not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        given = ["--text", options.text, "--split", options.split, "--dir", options.dir]
        environment = os.environ | {"STUDIO_CACHE_DIR": str(options.dir / "cache"), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-W", "ignore", "-m", "tests.bench.quality_row", name, file, *given]
        file.unlink(missing_ok=True)
        for kept in ("tokens", "survey", "costs"):  # what a row before found out costs time too
            shutil.rmtree(options.dir / "cache" / kept, ignore_errors=True)
        try:
            code = subprocess.run(list(map(str, command)), env=environment, check=False, timeout=LONGEST).returncode
        except subprocess.TimeoutExpired:
            return f"not done in {LONGEST // 60} minutes"
        if code:
            return "not installed" if code == NOT_INSTALLED else "failed"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return Row(**found)


def line(row: Row) -> str:
    cells = (
        row.name if row.version.startswith("0.1.0") else f"{row.name} ({row.version})",
        row.layout,
        row.target,
        f"{row.bits:.4f}",
        f"{row.seconds:.1f}",
        f"{row.kld[0]:.4f} ± {row.kld[1]:.4f}",
        f"{row.median:.4f}",
        f"{row.p99:.2f}",
        f"{100 * row.same_top[0]:.1f} ± {100 * row.same_top[1]:.1f} %",
        f"{row.perplexity:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def verdicts(rows: dict[str, Row]) -> list[str]:
    """Return what was asked for beside what was found, as lines of a table."""
    every = [row for name, row in rows.items() if name not in PEERS]
    ours = [row for row in every if row.bits <= BITS]
    integers = [row for row in ours if row.layout.startswith("int4_")]
    zero_points = [row for row in ours if row.layout == "int4_asym-g64"]
    lines = [
        _asked("a layout some engine loads, 45 s", ours, 45, 0.14, 0.11),
        _asked("integer zero points or symmetric, group 64, 60 s", integers, 60, 0.17, 0.13),
        _asked("any time up to 10 minutes", ours, 600, 0.12, 0.08),
        _asked("int4_asym 64, 60 s", zero_points, 60, 0.08, 0.072),
        _asked("int4_asym 64, 10 minutes", zero_points, 600, 0.072, 0.062),
        _asked("4.30 bits or fewer, 10 minutes", [row for row in ours if row.bits <= LEAN], 600, 0.07, 0.058),
        _asked("ratio 0.8's bytes (5.07 bits), 10 minutes", [r for r in every if r.bits <= FIFTH], 600, 0.048, 0.04),
    ]
    if NNCF not in rows:
        lines.append("| the best of NNCF | | | not measured | open |")
    else:
        best = rows[NNCF]
        name = f"the best of NNCF ({best.kld[0]:.4f} in {best.seconds:.0f} s), in a third of its time"
        no_larger = [row for row in ours if row.bits <= best.bits]
        lines.append(_asked(name, no_larger, best.seconds / SLOWER, 0.8 * best.kld[0], 0.5 * best.kld[0]))
    for name in ("llama.cpp Q4_0 + imatrix", "llama.cpp Q4_K_M + imatrix", "HQQ 96", "AutoRound light"):
        if name in rows:
            peer = rows[name]
            label = f"{name} ({peer.kld[0]:.4f} at {peer.bits:.2f} bits)"
            no_larger = [row for row in every if row.bits <= peer.bits]
            lines.append(_asked(label, no_larger, 600, peer.kld[0], 0.8 * peer.kld[0]))
    return lines


def _asked(name: str, rows: list[Row], seconds: float, must: float, goal: float) -> str:
    found = min((row for row in rows if row.seconds <= seconds), key=lambda row: row.kld[0], default=None)
    if found is None:
        return f"| {name} | {must:.3f} | {goal:.3f} | none in time | falls short of both |"
    kld = found.kld[0]
    verdict = "goal reached" if kld <= goal else "must reached, goal not" if kld <= must else "falls short of both"
    what = f"{kld:.4f}: {found.name}, {found.seconds:.0f} s, {found.bits:.2f} bits"
    return f"| {name} | {must:.3f} | {goal:.3f} | {what} | {verdict} |"


def table(header: str, lines: list[str]) -> str:
    return "\n".join((header, "|" + " --- |" * (header.count("|") - 1), *lines))


def absent(name: str, why: str) -> str:
    """Return the line of a row that there is not."""
    return f"| {name} | {ROWS[name].layout} | {ROWS[name].target} | {why} |" + " |" * (HEADER.count("|") - 5)


def write(rows: dict[str, Row], missing: dict[str, str], split: str) -> None:
    first = next(iter(rows.values()))
    machines = ", ".join(sorted({row.machine for row in rows.values()}))
    asked = (
        "\n## Asked for and found\n\nOurs of {} bits or fewer, the best within the time; against a larger peer, of no "
    )
    asked = asked.format(BITS) + "more bits than it.\n\n"
    parts: list[Any] = [
        INTRO.format(split=split, original=first.original, machines=machines),
        table(HEADER, [line(rows[name]) if name in rows else absent(name, missing[name]) for name in ROWS]),
        asked + table("| against | must | goal | found | |", verdicts(rows)),
    ]
    notes = FILE.with_name("QUALITY_NOTES.md")
    if notes.is_file():
        parts.append("\n" + notes.read_text(encoding="utf-8").strip())
    FILE.write_text("\n".join(parts) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, default=os.environ.get("STUDIO_BENCH_TEXT"), help="a long English text")
    parser.add_argument("--split", choices=("tuning", "test"), default="test")
    parser.add_argument("--only", help="rows whose name has this in it; they are printed, not written")
    parser.add_argument("--kept", action="store_true", help="only rows that are there; the table says which are not")
    parser.add_argument("--again", action="store_true", help="make rows that are there already, too")
    parser.add_argument("--dir", type=Path, default=Path(".pytest_cache/quality"), help="where to work")
    options = parser.parse_args()
    if options.text is None:
        raise SystemExit("name a long English text: --text FILE or STUDIO_BENCH_TEXT")
    options.dir = options.dir.resolve()
    print(HEADER)
    rows, missing = {}, {}
    for name in ROWS:
        if options.only is None or options.only in name:
            row = made(name, options)
            if isinstance(row, Row):
                rows[name] = row
                print(line(row), flush=True)
            else:
                missing[name] = row
                print(absent(name, row), flush=True)
    if options.only is None and rows:
        write(rows, missing, options.split)


if __name__ == "__main__":
    main()
