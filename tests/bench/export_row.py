"""``python -m tests.bench.export_row NAME FILE``: one file made, read by llama.cpp, and judged, as JSON.

A process of its own for each, since llama.cpp's library keeps what it takes. What is judged are llama.cpp's logits, on
the file, against the fp32 original's over held-out windows. Knows no goals.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import gguf
import torch
from torch import Tensor

from studio import export as studio_export
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.file_names import WEIGHTS
from studio.compression.compress import compress
from studio.evaluation.evaluate import Original
from studio.evaluation.figures import Tally
from studio.export import targets
from studio.planning.choice import Choice
from studio.planning.mixes import NONE
from studio.planning.plan import make_plan
from studio.quantization.methods import BEST
from studio.quantization.scheme import Mode
from studio.runtime.model import load_tokenizer
from tests.bench.export_models import model, moments, names_in_file, write_f32
from tests.bench.llama_library import engine, quantize_file
from tests.bench.quality_data import Windows, windows
from tests.steps import finish

SIMPLE = ("q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
SUPER = ("q4_k", "q5_k", "q6_k", "iq4_xs")
MIX = "q4_k_m"
LENGTH = 512


@dataclass(frozen=True)
class Row:
    """One file, judged."""

    name: str
    kld: list[float]
    """Of each window, nats a token."""
    same_top: list[float]
    nbytes: int
    """Of all tensors."""
    kinds: dict[str, int]
    """How many weights each type holds."""


@dataclass(frozen=True)
class Work:
    """What a row is made in and of."""

    checkpoint: Checkpoint
    text: Windows
    folder: Path
    """Where rows share what they can."""


def text_windows(text: Path, checkpoint: Checkpoint, folder: Path) -> Windows:
    """Return the windows of a text, which is tokenized once: both models have the same tokenizer."""
    kept = folder / f"windows-{hashlib.sha256(text.read_bytes()).hexdigest()[:16]}.pt"
    if not kept.is_file():
        torch.save(asdict(windows(text, load_tokenizer(checkpoint.path))), kept)
    return Windows(**torch.load(kept))


Make = Callable[[Work, Path], Path]
"""Work, an empty folder -> the .gguf file."""


def peer(mode: str, work: Work, place: Path) -> Path:
    """llama.cpp's own quantizer, with the calibration's mean squares as an imatrix."""
    source = work.folder / f"{work.checkpoint.name}-f32.gguf"
    if not source.is_file():
        write_f32(work.checkpoint, source.with_suffix(".part"))
        source.with_suffix(".part").rename(source)
    out = place / "peer.gguf"
    is_mix = mode == MIX
    quantize_file(source, out, mode, imatrix(work), pure=not is_mix, embedding=None if is_mix else "q8_0")
    return out


def imatrix(work: Work) -> dict[str, Tensor]:
    """Return E[x^2] of every weight's inputs over the calibration tokens, by the weight's name in the file."""
    kept = work.folder / f"{work.checkpoint.name}-imatrix.pt"
    if not kept.is_file():
        names = names_in_file(work.checkpoint)
        found = moments(work.checkpoint, work.text.calibration)
        torch.save({names[name]: moment.diagonal().clone() for name, moment in found.items()}, kept)
    loaded: dict[str, Tensor] = torch.load(kept)
    return loaded


def ours(mode: str, work: Work, place: Path) -> Path:
    """The studio's ``best`` method in the same layout, exported."""
    alone = Mode(mode) if mode != MIX else Mode.Q8_0
    choice = Choice(alone, 32, backup=Mode.Q8_0, method=BEST, mix=mode if mode == MIX else NONE)
    plan = make_plan(work.checkpoint.layers, choice)
    compressed = finish(compress(work.checkpoint, plan, place / WEIGHTS, work.text.calibration))
    folder = studio_export.write_folder(work.checkpoint, compressed, place / "out")
    return finish(targets.export(targets.target_named("gguf"), folder, place / "ours.gguf"))


MAKERS: dict[str, Callable[[str, Work, Path], Path]] = {"llama.cpp": peer, "ours": ours}
MODEL_OF = dict.fromkeys((*SIMPLE, MIX), "dithered") | dict.fromkeys(SUPER, "cut")
ROWS: dict[str, tuple[str, Make]] = {
    f"{who} {mode}": (MODEL_OF[mode], partial(make, mode)) for mode in MODEL_OF for who, make in MAKERS.items()
}
"""By name: the model, and what makes its file."""


def judged(name: str, file: Path, work: Work, ids: Tensor) -> Row:
    """Return what llama.cpp's logits for a file are worth, over windows ``ids`` [W, T]."""
    original, tally = Original(work.checkpoint), Tally(len(ids))
    with engine(file, LENGTH) as llama:
        for window in ids:
            states = finish(original.hidden(window.unsqueeze(0)))[0]
            theirs = llama.logits(window)
            for _ in tally.add(window, iter([torch.cat(list(original.logits(states)))]), iter([theirs])):
                pass
    tensors = gguf.GGUFReader(file).tensors
    kinds: dict[str, int] = {}
    for tensor in tensors:
        kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    nbytes = sum(int(tensor.n_bytes) for tensor in tensors)
    kld, same = ([float(each.mean()) for each in values] for values in (tally.kld, tally.same))
    return Row(name, kld, same, nbytes, kinds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=ROWS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args()
    which, make = ROWS[options.name]
    checkpoint = model(which, options.dir)
    work = Work(checkpoint, text_windows(options.text, checkpoint, options.dir), options.dir)
    place = options.file.with_suffix("")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    file = make(work, place)
    ids: Tensor = getattr(work.text, options.split)
    row = judged(options.name, file, work, ids[:: max(1, len(ids) // options.windows)])
    kept = options.file.with_suffix(".gguf")
    file.replace(kept)
    shutil.rmtree(place)
    options.file.write_text(json.dumps(asdict(row), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
