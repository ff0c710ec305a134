"""``python -m tests.bench.export_exact OUT``: llama.cpp's logits on our file against our own, and why they differ.

llama.cpp rounds what a packed weight is multiplied with to 8 bits, in blocks of 32 (Q8_0 and Q8_1: step max / 127, kept
in fp16) or, for blocks of 256, of 256 (Q8_K: step max / 127, in fp32); its cache of keys and values is fp16. So the
same numbers in fp32, but with each input rounded like that, have to give llama.cpp's logits, and how far they are from
those without rounding is what the difference has to be. Both are measured here; rounding is to nearest, since the
layout is all that matters. Source of the steps: ggml's ``quantize_row_q8_0`` and ``quantize_row_q8_K``.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from studio import export as studio_export
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.layers import Kind, Layer
from studio.compression.compress import compress
from studio.export import targets
from studio.export.compressed_model import opened
from studio.export.read_back import kld
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Mode
from studio.runtime.block_model import BlockModel
from studio.runtime.model import load_compressed
from tests.bench.export_models import linear, model
from tests.bench.export_row import MODEL_OF, text_windows
from tests.bench.llama_library import engine
from tests.steps import finish

MODES = ("q4_0", "q5_1", "iq4_nl", "q4_k", "q6_k", "iq4_xs")
WINDOWS = 2
Q8_MAX = 127


@dataclass(frozen=True)
class Exactness:
    """KL divergences of llama.cpp's distributions on a file, nats a token, and largest differences of two logits."""

    packed: float
    """From our own packed product, which computes in bf16."""
    packed_logit: float
    fp32: float
    """From the file's numbers in fp32."""
    fp32_logit: float
    predicted: float
    """Of those with inputs rounded to 8 bits from those without: what the one above has to be."""
    rounded: float
    """From the file's numbers in fp32 with inputs rounded: what is left unexplained."""
    rounded_logit: float


def rounded_inputs(x: Tensor, block: int) -> Tensor:
    """Return inputs [..., K] in 8 bits as llama.cpp rounds them, in blocks of 32 or 256."""
    blocks = x.unflatten(-1, (-1, block))
    step = blocks.abs().amax(-1, keepdim=True) / Q8_MAX
    codes = torch.where(step > 0, blocks / torch.where(step > 0, step, 1.0), 0.0).round_()
    rounded: Tensor = codes * (step.half().float() if block == 32 else step)
    return rounded.flatten(-2)


def logits(checkpoint: Checkpoint, numbers: Mapping[str, Tensor], ids: Tensor, block: int) -> Tensor:
    """Return fp32 logits [T, V] of a checkpoint with these numbers, ``block`` 0 for inputs as they are."""
    blocks = BlockModel(checkpoint, torch.float32, transform=partial(_stored, numbers))
    if block:
        for layer in linear(checkpoint):
            module = blocks.model.get_submodule(layer.name.removesuffix(".weight"))
            module.register_forward_pre_hook(lambda _, given: (rounded_inputs(given[0], block),))
    states: Tensor = finish(blocks.run(ids.unsqueeze(0)))[0]
    head = next(layer for layer in checkpoint.layers if layer.kind is Kind.EMBEDDING)  # which is the head as well
    return (rounded_inputs(states, 32) if block else states) @ numbers[head.name].T  # Q8_0 whatever the blocks are


def _stored(numbers: Mapping[str, Tensor], layer: Layer, original: Tensor) -> Tensor:
    return numbers[layer.name]


def exactness(checkpoint: Checkpoint, mode: str, ids: Tensor, place: Path) -> Exactness:
    """Return how llama.cpp's logits on a file of this mode compare, over windows ``ids`` [W, T]."""
    plan = make_plan(checkpoint.layers, Choice(Mode(mode), 32, backup=Mode.Q8_0))
    folder = studio_export.write_folder(
        checkpoint, finish(compress(checkpoint, plan, place / WEIGHTS)), place / "folder"
    )
    file = finish(targets.export(targets.target_named("gguf"), folder, place / "file.gguf"))
    numbers = {
        a.layer.name: (tensor.dequantize() if isinstance(tensor, PackedTensor) else tensor).float()
        for a, tensor in opened(folder).tensors()
    }
    block = 256 if MODEL_OF[mode] == "cut" else 32
    packed = load_compressed(folder)
    found: list[tuple[float, ...]] = []
    with engine(file, ids.shape[1]) as llama, torch.inference_mode():
        for window in ids:
            theirs = llama.logits(window)
            ours = packed(window.unsqueeze(0)).logits[0].float()
            plain, rounded = (logits(checkpoint, numbers, window, each) for each in (0, block))
            row: list[float] = []
            for one in (ours, plain, rounded):
                row += [kld(one, theirs.log_softmax(-1)).mean, float((one - theirs).abs().max())]
            found.append((*row, kld(plain, rounded.log_softmax(-1)).mean))
    mean = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    largest = torch.tensor(found, dtype=torch.float64).amax(0).tolist()
    return Exactness(mean[0], largest[1], mean[2], largest[3], mean[6], mean[4], largest[5])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--modes", nargs="+", default=MODES)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args()
    found: dict[str, Exactness] = {}
    for mode in options.modes:
        checkpoint = model(MODEL_OF[mode], options.dir)
        ids: Tensor = getattr(text_windows(options.text, checkpoint, options.dir), options.split)[:WINDOWS]
        place = options.dir / "exact"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        found[mode] = exactness(checkpoint, mode, ids, place)
        shutil.rmtree(place)
        print(mode, found[mode], flush=True)
    options.out.write_text(json.dumps({mode: asdict(each) for mode, each in found.items()}), encoding="utf-8")


if __name__ == "__main__":
    main()
