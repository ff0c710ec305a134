"""``python -m tests.bench.export_errors OUT FILE...``: output errors of the cut model's files, layer by layer, as JSON.

Of each weight of the blocks ‖X(W - Ŵ)‖² / ‖XW‖², Ŵ being what gguf-py reads of the file, X what the layer is given in
the fp32 original over held-out tokens. Knows neither who made a file nor how.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import gguf
import torch
from torch import Tensor

from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import load_config
from studio.export.gguf.families import family_of
from studio.export.gguf.tensors import named_tensors, permuted
from tests.bench.export_models import linear, model, moments

TOKENS = 4096
"""Of held-out text, as many as calibrate."""


@dataclass(frozen=True)
class Errors:
    """A file's errors."""

    layers: dict[str, float]
    """‖X(W - Ŵ)‖² / ‖XW‖² by the weight's name."""

    @property
    def mean(self) -> float:
        return sum(self.layers.values()) / len(self.layers)


def errors(checkpoint: Checkpoint, files: dict[str, Path], ids: Tensor) -> dict[str, Errors]:
    """Return each file's errors over tokens ``ids`` [W, T]."""
    config = load_config(read_json(checkpoint.path / "config.json"))
    named = {each.layer.name: each for each in named_tensors(checkpoint.layers, family_of(config), config)}
    opened = {name: {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors} for name, file in files.items()}
    found: dict[str, dict[str, float]] = {name: {} for name in files}
    hessians = moments(checkpoint, ids)
    for layer in linear(checkpoint):
        weight, hessian, place = checkpoint.read(layer).float(), hessians[layer.name], named[layer.name]
        weight = permuted(weight, place.rows_of_a_head)
        whole = float(((weight @ hessian) * weight).sum())
        for name, tensors in opened.items():
            tensor = tensors[place.name]
            numbers = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).reshape(weight.shape)
            moved = numbers - weight
            found[name][layer.name] = float(((moved @ hessian) * moved).sum()) / whole
    return {name: Errors(layers) for name, layers in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args()
    checkpoint = model("cut", options.dir)
    from tests.bench.export_row import text_windows

    ids: Tensor = getattr(text_windows(options.text, checkpoint, options.dir), options.split)
    files = {file.stem.replace("_", " ", 1): file for file in options.files}
    count = max(1, TOKENS // ids.shape[1])
    found = errors(checkpoint, files, ids[:: max(1, len(ids) // count)][:count])
    options.out.write_text(json.dumps({name: asdict(each) for name, each in found.items()}), encoding="utf-8")


if __name__ == "__main__":
    main()
