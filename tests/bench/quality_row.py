"""``python -m tests.bench.quality_row NAME FILE``: one row of the table, in a process of its own, as JSON.

Two cores compress, whatever the machine has, so that seconds can be compared; all of them judge.
"""

import argparse
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from studio import export
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.recipe import read_recipe
from studio.compression.compress import compress
from studio.evaluation.evaluate import Original
from studio.evaluation.figures import Evaluation, Tally
from studio.planning.budget import Budget
from studio.planning.choice import SENSITIVITIES, Choice, Pin, Sensitivity
from studio.planning.palettes import PALETTES
from studio.planning.plan import Plan, damage_scores, make_plan
from studio.planning.predicted_damage import measure
from studio.planning.survey import sensitivities
from studio.quantization.methods import Method
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.model import load_tokenizer
from tests.bench.quality_data import dithered, spread, windows
from tests.bench.quality_peers import PEERS, Made, Peer, Predict, predictor
from tests.steps import finish

NOT_INSTALLED = 3
"""What this process ends with when a peer's package is not there."""
CORES = 2
BATCH = 4
"""Windows judged at once."""
BOTH = "OpenVINO, compressed-tensors"
TARGET = "openvino"
"""Whose schemes a budget is spent on."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    layout: str
    target: str
    """An engine that loads the layout."""
    bits: float
    seconds: float
    machine: str
    """The processor."""
    version: str
    kld: tuple[float, float]
    """Mean and standard error over windows, nats a token; likewise below."""
    median: float
    p99: float
    same_top: tuple[float, float]
    perplexity: float
    original: float


def ours(
    method: Method, scheme: Scheme, ratio: float = 1.0, by: Sensitivity = "damage"
) -> Callable[[Checkpoint, Tensor, Path], Made]:
    """The studio, from the model's files to the written one; judged from what it exports.

    With a ratio the rest of the blocks is at 8 bits, and what finds out which is in the time.
    """

    def make(checkpoint: Checkpoint, tokens: Tensor, folder: Path) -> Made:
        choice = Choice(scheme.mode, scheme.group_size, ratio, Mode.INT8_ASYM, method=method, sensitivity=by)
        began = time.perf_counter()
        scores: Mapping[str, float] | None = None
        if ratio < 1:
            scores = (
                damage_scores(checkpoint.layers, choice, finish(measure(checkpoint, [scheme])))
                if by == "damage"
                else finish(sensitivities(checkpoint))
            )
        return carried_out(checkpoint, make_plan(checkpoint.layers, choice, scores), tokens, folder, began)

    return make


def ours_within(method: Method, bits: float) -> Callable[[Checkpoint, Tensor, Path], Made]:
    """The studio, given so many bits a block weight to spend on OpenVINO's schemes, embedding and head at 8 bits.

    What predicts each layer's damage is in the time.
    """

    def make(checkpoint: Checkpoint, tokens: Tensor, folder: Path) -> Made:
        began = time.perf_counter()
        damages = finish(measure(checkpoint, list(PALETTES[TARGET].schemes)))
        blocks = [layer for layer in checkpoint.layers if layer.kind is Kind.LINEAR]
        pins = tuple(Pin.parse(f"{layer.name}=int8_asym") for layer in checkpoint.layers if is_table(layer))
        rest = make_plan(checkpoint.layers, Choice(Mode.INT8_ASYM, pins=pins)).assignments
        beside = sum(a.nbytes for a in rest if a.layer.kind is not Kind.LINEAR)
        limit = beside + int(bits * sum(layer.numel for layer in blocks) / 8)
        choice = Choice(budget=Budget.parse(f"{limit}B"), target=TARGET, pins=pins, method=method)
        plan = make_plan(checkpoint.layers, choice, damages=damages)
        return carried_out(checkpoint, plan, tokens, folder, began)

    return make


def is_table(layer: Layer) -> bool:
    return layer.kind in (Kind.EMBEDDING, Kind.HEAD)


def carried_out(checkpoint: Checkpoint, plan: Plan, tokens: Tensor, folder: Path, began: float) -> Made:
    """Return what a plan becomes; the time is from ``began`` to the written file."""
    from studio import __version__

    given = tokens if plan.choice.method.needs_inputs else None
    compressed = finish(compress(checkpoint, plan, folder / WEIGHTS, given))
    seconds = time.perf_counter() - began
    out = export.write_folder(checkpoint, compressed, folder / "out")
    blocks = [a for a in plan.assignments if a.layer.kind is Kind.LINEAR]
    bits = 8 * sum(a.nbytes for a in blocks) / sum(a.layer.numel for a in blocks)
    return Made(lambda: predictor(checkpoint, exported(out)), bits, seconds, __version__)


def exported(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of an exported folder, packed ones as what their numbers stand for, by name."""
    found: dict[str, Tensor] = {}
    with safe_open(folder / read_recipe(folder).weights_file, framework="pt") as file:
        packed = {f"{weight.name}.{part.name}" for weight in read_recipe(folder).weights for part in weight.parts}
        found |= {name: file.get_tensor(name) for name in set(file.keys()) - packed}  # AWQ's norms are not the source's
        for weight in read_recipe(folder).weights:
            arrays = {part.name: file.get_tensor(f"{weight.name}.{part.name}") for part in weight.parts}
            found[weight.name] = PackedTensor.of(Scheme.parse(weight.scheme), weight.shape, arrays).dequantize()
    return found


def _ours() -> dict[str, Peer]:
    fisher, two_sided, distilled = Method.FISHER_GPTQ, Method.TWO_SIDED, Method.DISTILLED
    asked = [
        (Scheme(Mode.INT4_ASYM, 64), BOTH, list(Method)),
        (Scheme(Mode.INT4_SYM, 64), BOTH, [Method.GPTQ, fisher]),
        (
            Scheme(Mode.NF4, 64),
            "OpenVINO",
            [Method.NEAREST, Method.LEAST_SQUARES, Method.GPTQ, fisher, two_sided, distilled],
        ),
        (Scheme(Mode.CB4_LEARNED, 64), "OpenVINO", [Method.LEAST_SQUARES, Method.GPTQ, fisher]),
        (Scheme(Mode.INT5_SYM, 32), "llama.cpp (Q5_0)", [fisher]),
        (Scheme(Mode.INT4_AFFINE, 64), "MLX, ONNX, OpenVINO", [Method.NEAREST, fisher]),
    ]
    rows = {
        f"{method.value} {scheme}": Peer(str(scheme), target, ours(method, scheme), method.rounding.windows)
        for scheme, target, methods in asked
        for method in methods
    }
    # A fifth of the weights at 8 bits: what decides which.
    int4 = Scheme(Mode.INT4_ASYM, 64)
    for method, by in itertools.product((Method.NEAREST, fisher), SENSITIVITIES):
        name = f"{method.value} {int4}, ratio 0.8 by {'predicted damage' if by == 'damage' else 'NNCF'}"
        rows[name] = Peer(f"{int4}, int8_asym", BOTH, ours(method, int4, 0.8, by))
    # As many bytes as llama.cpp's Q4_K_M takes here.
    for scheme, ratio, target in (
        (int4, 0.678, BOTH),
        (Scheme(Mode.NF4, 64), 0.667, "OpenVINO"),
    ):
        rows[f"fisher_gptq {scheme} + int8"] = Peer(f"{scheme}, int8_asym", target, ours(fisher, scheme, ratio))
    # At a fifth's bytes, and as many as a layout of 4.30 bits may take: a budget.
    for method, bits in ((fisher, 5.0646), (distilled, 5.0646), (distilled, 4.3)):
        rows[f"{method.value}, budget of {bits:.2f} bits"] = Peer(
            "a budget's", "OpenVINO", ours_within(method, bits), method.rounding.windows
        )
    # And as many as int4_asym takes at group 64, or little more.
    rows["fisher_gptq nf4-g64 + 2 % int8"] = Peer(
        "nf4-g64, int8_asym", "OpenVINO", ours(fisher, Scheme(Mode.NF4, 64), 0.982)
    )
    return rows


ROWS = _ours() | PEERS


def forward_all(checkpoint: Checkpoint, predict: Predict, ids: Tensor) -> Evaluation:
    """Return the evaluation of fp32 predictions against the fp32 original, whose hidden states are kept."""
    original, tally = Original(checkpoint), Tally(len(ids))
    table = checkpoint.read(next(layer for layer in checkpoint.layers if layer.kind is Kind.EMBEDDING)).float()
    for batch in ids.split(BATCH):
        states = finish(original.hidden(batch))
        other = predict(batch)
        for index, window in enumerate(batch):
            for _ in tally.add(window, iter([states[index] @ table.T]), iter([other[index]])):
                pass
    return tally.result()


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=ROWS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args()
    peer = ROWS[options.name]
    checkpoint = dithered(options.dir / "dithered")
    text = windows(options.text, load_tokenizer(checkpoint.path))
    folder = options.file.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:CORES])
    torch.set_num_threads(CORES)
    began = time.process_time()
    try:
        tokens = spread(text.part, peer.windows, text.calibration.shape[1])
        made = peer.make(checkpoint, tokens, folder)
    except ImportError as error:
        print(error, file=sys.stderr)
        shutil.rmtree(folder)
        raise SystemExit(NOT_INSTALLED) from None
    print(f"{options.name}: {time.process_time() - began:.0f} CPU seconds", file=sys.stderr)
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    found = forward_all(checkpoint, made.predict(), getattr(text, options.split))
    shutil.rmtree(folder)
    row = Row(
        name=options.name,
        layout=peer.layout,
        target=peer.target,
        bits=made.bits,
        seconds=made.seconds,
        machine=processor(),
        version=made.version,
        kld=(found.kld.mean, found.kld.standard_error or 0.0),
        median=found.kld_median,
        p99=found.kld_p99,
        same_top=(found.same_top.mean, found.same_top.standard_error or 0.0),
        perplexity=found.perplexity.mean,
        original=found.original_perplexity.mean,
    )
    options.file.write_text(json.dumps(asdict(row), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
