"""``make bench-export TEXT=file``: our GGUF files against llama.cpp's own quantizer's, into EXPORT.md.

llama.cpp judges. Both get the same fp32 weights and the same 4,096 calibration tokens, llama.cpp as an imatrix: E[x^2]
of each input channel, as its ``llama-imatrix`` computes it. Embedding and head are Q8_0 on both sides; the mix is as
llama.cpp has it. A row is a process of its own and is kept in ``--dir``: only what is not there is made, ``--again``
makes all.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.bench.export_errors import Errors
from tests.bench.export_exact import Exactness
from tests.bench.export_row import MIX, ROWS, SIMPLE, SUPER, Row
from tests.bench.export_tables import error_table, exact_table, kld_table, told
from tests.bench.llama_library import RELEASE, VERSION, installation

FILE = Path(__file__).with_name("EXPORT.md")
LONGEST = 4 * 3600
"""Seconds that a row may take on a machine however busy."""
EXACT_INTRO = """
## llama.cpp's logits on our file against ours

KL divergence of llama.cpp's distributions from our own packed product (bf16), the file's numbers in fp32, the same with
every product's inputs rounded to 8 bits as llama.cpp's kernels round them (`export_exact.py`). The third column is what
that rounding alone does to the numbers in fp32, which the second has to be; the last is what it leaves unexplained.
Asked for: less than 1e-3.

"""
INTRO = """# Files for llama.cpp: our rounding against its own

`make bench-export TEXT=file` wrote this; the protocol stands in `export.py`. llama.cpp {release}, as node-llama-cpp
{version} brings it, quantizes with an imatrix of the same 4,096 tokens, and reads both files: KL divergence (nats a
token) of its logits from the fp32 original's over {windows} windows of 512 held-out tokens, ± the standard error over
windows; that of a ratio is of the windows' paired differences.
"""
SIMPLE_INTRO = "\n## The dithered built-in model, same type on both sides\n\n"
SUPER_INTRO = """
## Blocks of 256: the same model cut to widths that they divide

512 hidden channels, 8 heads; what it predicts is nonsense, but its weights and inputs are a real model's. Output error:
‖X(W - Ŵ)‖² / ‖XW‖² of each of the {layers} layers on held-out inputs of the fp32 original, the mean over layers;
the square is what KL divergence grows with. Its root is beside it.

"""


def made(name: str, options: argparse.Namespace) -> Row | None:
    """Return a row, made if it is not there and ``--kept`` does not forbid it. Raises SystemExit where it fails."""
    file = row_file(name, options)
    if options.kept and not file.is_file():
        return None
    if options.again or not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        module(["tests.bench.export_row", name, file, "--windows", options.windows], options)
    return Row(**json.loads(file.read_text(encoding="utf-8")))


def rows_folder(options: argparse.Namespace) -> Path:
    found: Path = options.dir / "rows" / f"{options.split}-{options.windows}"
    return found


def row_file(name: str, options: argparse.Namespace) -> Path:
    return rows_folder(options) / f"{name.replace(' ', '_')}.json"


def module(command: list[object], options: argparse.Namespace) -> None:
    """Run a module of this bench in a process of its own."""
    given = ["--text", options.text, "--split", options.split, "--dir", options.dir]
    environment = os.environ | {
        "STUDIO_CACHE_DIR": str(options.dir / "cache"),
        "STUDIO_NODE_LLAMA": str(installation()),
        "HF_HUB_OFFLINE": "1",
    }
    words = [sys.executable, "-W", "ignore", "-m", *map(str, command), *map(str, given)]
    if subprocess.run(words, env=environment, check=False, timeout=LONGEST).returncode:
        raise SystemExit(f"{command[1]}: failed")


def errors_of(options: argparse.Namespace) -> dict[str, Errors]:
    """Return the output errors of the cut model's files, by row."""
    file = rows_folder(options) / "errors.json"
    rows = [row_file(f"{who} {mode}", options) for mode in SUPER for who in ("llama.cpp", "ours")]
    there = [row for row in rows if row.is_file()]
    if not file.is_file() or any(row.stat().st_mtime > file.stat().st_mtime for row in there):
        if options.kept or not there:
            return {}
        module(["tests.bench.export_errors", file, *(row.with_suffix(".gguf") for row in there)], options)
    return {name: Errors(**found) for name, found in json.loads(file.read_text(encoding="utf-8")).items()}


def exactness_of(options: argparse.Namespace) -> dict[str, Exactness]:
    """Return how llama.cpp's logits on our files compare with our own, by mode."""
    file = rows_folder(options) / "exact.json"
    if options.kept and not file.is_file():
        return {}
    if options.again or not file.is_file():
        module(["tests.bench.export_exact", file], options)
    return {name: Exactness(**found) for name, found in json.loads(file.read_text(encoding="utf-8")).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, default=os.environ.get("STUDIO_BENCH_TEXT"), help="a long English text")
    parser.add_argument("--split", choices=("tuning", "test"), default="test")
    parser.add_argument("--windows", type=int, default=24, help="of 512 tokens to judge on, at most 24")
    parser.add_argument("--only", help="rows whose name has this in it; they are printed, not written")
    parser.add_argument("--again", action="store_true", help="make rows that are there already, too")
    parser.add_argument("--kept", action="store_true", help="only rows that are there; the table says which are not")
    parser.add_argument("--dir", type=Path, default=Path(".pytest_cache/export"), help="where to work")
    options = parser.parse_args()
    if options.text is None:
        raise SystemExit("name a long English text: --text FILE or STUDIO_BENCH_TEXT")
    options.dir = options.dir.resolve()
    rows: dict[str, Row] = {}
    for name in ROWS:
        if options.only is None or options.only in name:
            row = made(name, options)
            if row is None:
                continue
            rows[name] = row
            print(f"{name}: {told(rows[name].kld)}", flush=True)
    if options.only is not None or not rows:
        return
    errors = errors_of(options)
    count = len(next(iter(rows.values())).kld)
    layers = max((len(each.layers) for each in errors.values()), default=210)
    parts = [
        INTRO.format(release=RELEASE, version=VERSION, windows=count),
        SIMPLE_INTRO + kld_table((*SIMPLE, MIX), rows),
        SUPER_INTRO.format(layers=layers) + error_table(errors),
        "\nThe same files judged as the others are:\n\n" + kld_table(SUPER, rows),
        EXACT_INTRO + exact_table(exactness_of(options)),
    ]
    notes = FILE.with_name("EXPORT_NOTES.md")
    if notes.is_file():
        parts.append("\n" + notes.read_text(encoding="utf-8"))
    FILE.write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
