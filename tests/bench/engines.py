"""``make bench-engines TEXT=file``: each engine's own quantizer against ours at equal bytes, each run there, into
ENGINES.md.

The dithered model (``quality_data``), the calibration and test windows of ``bench-quality``. A row is a process of its
own and is kept in ``--dir``: only what is not there is made, ``--again`` makes all.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tests.bench.engines_peers import PAIRS, ROWS
from tests.bench.engines_row import Row
from tests.bench.export_tables import NOT_MEASURED, table, told, verdict

FILE = Path(__file__).with_name("ENGINES.md")
LONGEST = 7200
"""Seconds that a row may take on a machine however busy."""
MUST, GOAL = 0.5, 0.4
INTRO = """# Each engine's own quantizer, and ours in the same engine

`make bench-engines TEXT=file` wrote this; the protocol stands in `engines.py` and `engines_peers.py`. KL divergence
(nats a token) of each engine's logits from the fp32 original's over {windows} windows of 512 held-out tokens, ± the
standard error over windows; that of a ratio is of the windows' paired differences. Bits are those of a weight of the
blocks, all else is the same on both sides. Seconds are of processors, calibration counted.

"""


def made(name: str, options: argparse.Namespace) -> Row | None:
    """Return a row, made if it is not there and ``--kept`` does not forbid it; None where it could not be."""
    stem = "".join(c if c.isalnum() else "_" for c in name)
    file: Path = options.dir / "engines" / f"test-{options.windows}" / f"{stem}.json"
    if options.kept and not file.is_file():
        return None
    if options.again or not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        given = ["--text", options.text, "--windows", options.windows, "--dir", options.dir]
        command = [sys.executable, "-W", "ignore", "-m", "tests.bench.engines_row", name, file, *given]
        environment = os.environ | {"STUDIO_CACHE_DIR": str(options.dir / "cache"), "HF_HUB_OFFLINE": "1"}
        file.unlink(missing_ok=True)
        if subprocess.run(list(map(str, command)), env=environment, check=False, timeout=LONGEST).returncode:
            return None
    return Row(**json.loads(file.read_text(encoding="utf-8")))


def ratio_of(mine: list[float], theirs: list[float]) -> tuple[float, float]:
    """Return the ratio of two means over the same windows, and its standard error to first order."""
    ratio = statistics.fmean(mine) / statistics.fmean(theirs)
    left = [a - ratio * b for a, b in zip(mine, theirs, strict=True)]
    return ratio, statistics.stdev(left) / math.sqrt(len(left)) / statistics.fmean(theirs)


def lines(rows: dict[str, Row]) -> list[list[str]]:
    """Return a line for each pair, with what was asked for."""
    found = [["engine's own", "ours", "bits", "its KLD", "our KLD", "ratio", "same top", "seconds", "must", "goal", ""]]
    for ours, peers in PAIRS:
        for peer in peers:
            mine, theirs = rows.get(ours), rows.get(peer)
            if mine is None or theirs is None:
                known = ["" if row is None else told(row.kld) for row in (theirs, mine)]
                found.append([peer, ours.partition(", ")[2], "", *known, NOT_MEASURED, *[""] * 5])
                continue
            ratio, error = ratio_of(mine.kld, theirs.kld)
            top = " / ".join(f"{100 * sum(row.same_top) / len(row.same_top):.1f}" for row in (theirs, mine))
            found.append([
                f"{peer} ({theirs.version})", ours.partition(", ")[2], f"{theirs.bits:.4f} / {mine.bits:.4f}",
                told(theirs.kld), told(mine.kld), f"**{ratio:.3f}** ± {error:.3f}", f"{top} %",
                f"{theirs.seconds:.0f} / {mine.seconds:.0f}", f"{MUST}", f"{GOAL}", verdict(ratio, MUST, GOAL),
            ])  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, default=os.environ.get("STUDIO_BENCH_TEXT"), help="a long English text")
    parser.add_argument("--windows", type=int, default=8, help="of 512 tokens to judge on, at most 24")
    parser.add_argument("--only", help="rows whose name has this in it; they are printed, not written")
    parser.add_argument("--again", action="store_true", help="make rows that are there already, too")
    parser.add_argument("--kept", action="store_true", help="only rows that are there; the table says which are not")
    parser.add_argument("--dir", type=Path, default=Path(".pytest_cache/quality"), help="where to work")
    options = parser.parse_args()
    if options.text is None:
        raise SystemExit("name a long English text: --text FILE or STUDIO_BENCH_TEXT")
    options.dir = options.dir.resolve()
    rows: dict[str, Row] = {}
    for name in ROWS:
        if options.only is None or options.only in name:
            row = made(name, options)
            if row is not None:
                rows[name] = row
            said = "not made" if row is None else f"{told(row.kld)}, {row.bits:.4f} bits, {row.seconds:.0f} s of CPU"
            print(f"{name}: {said}", flush=True)
    if options.only is None and rows:
        intro = INTRO.format(windows=len(next(iter(rows.values())).kld))
        FILE.write_text(intro + table(lines(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
