"""``python -m tests.bench.engines_row NAME FILE``: one model made, run in its engine and judged, as JSON.

A process of its own for each, since engines keep what they take. What is judged are the engine's logits against the
fp32 original's over held-out windows.
"""

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from studio.checkpoint.checkpoint import Checkpoint
from studio.evaluation.evaluate import Original
from studio.evaluation.figures import Tally
from tests.bench.engines_peers import ROWS, Predict
from tests.bench.export_row import text_windows
from tests.bench.quality_data import dithered
from tests.steps import finish


@dataclass(frozen=True)
class Row:
    """One model in its engine."""

    name: str
    kld: list[float]
    """Of each window, nats a token."""
    same_top: list[float]
    bits: float
    """A weight of the blocks."""
    seconds: float
    """Of processors, to make it."""
    version: str


def judged(checkpoint: Checkpoint, predict: Predict, ids: Tensor) -> tuple[list[float], list[float]]:
    """Return KL divergence and same likeliest token of each of the windows ``ids`` [W, T]."""
    original, tally = Original(checkpoint), Tally(len(ids))
    for window in ids:
        states = finish(original.hidden(window.unsqueeze(0)))[0]
        theirs = predict(window)
        for _ in tally.add(window, iter([torch.cat(list(original.logits(states)))]), iter([theirs])):
            pass
    kld, same = ([float(each.mean()) for each in values] for values in (tally.kld, tally.same))
    return kld, same


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=ROWS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args()
    checkpoint = dithered(options.dir / "dithered")
    text = text_windows(options.text, checkpoint, options.dir)
    place = options.file.with_suffix("")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    made = ROWS[options.name](checkpoint, text.calibration, place)
    with torch.no_grad():
        kld, same = judged(checkpoint, made.predict(), text.test[:: len(text.test) // options.windows])
    shutil.rmtree(place)
    row = Row(options.name, kld, same, made.bits, made.seconds, made.version)
    options.file.write_text(json.dumps(asdict(row), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
