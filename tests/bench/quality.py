"""``make bench-quality TEXT=file``: KL divergence, bytes and seconds of each method, into QUALITY.md.

The dithered model (``quality_data``), 16 windows of 256 tokens for calibration, 24 of 512 to be judged on, from parts
of the text that do not overlap. Embedding and head are INT8. What is judged is the exported file: its codes, zero
points and stored scales, dequantized and run in fp32 against the fp32 original. Seconds are of the whole work, from
the files of the model to the written file, calibration included. With ``--only`` the other rows of the table stay.
"""

import argparse
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import linear

from studio import export
from studio.architecture import Kind, Layer
from studio.blocks import BlockModel
from studio.checkpoint import WEIGHTS, Checkpoint
from studio.compress import compress
from studio.evaluate import Evaluation, Original, Tally
from studio.model import load_tokenizer
from studio.packing import PackedTensor
from studio.plan import Choice, make_plan
from studio.recipe import read_recipe
from studio.scheme import Method, Mode, Scheme
from tests.bench.quality_data import Windows, dithered, windows
from tests.steps import finish

FILE = Path(__file__).with_name("QUALITY.md")
TARGETS = {
    Mode.INT4_ASYM: "OpenVINO, compressed-tensors",
    Mode.INT4_SYM: "OpenVINO, compressed-tensors",
    Mode.NF4: "OpenVINO",
    Mode.CB4_LEARNED: "OpenVINO",
}
"""An engine that loads each layout."""
ROWS = [
    (method, Scheme(mode, 64))
    for mode in TARGETS
    for method in Method
    if mode is Mode.INT4_ASYM or method in (Method.NEAREST, Method.LEAST_SQUARES, Method.GPTQ)
]
HEADER = "| method | layout | loads in | bits a block weight | seconds | KLD | median | p99 | same top | perplexity |"


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    layout: str
    target: str
    bits: float
    seconds: float
    found: Evaluation

    def __str__(self) -> str:
        kld, top = self.found.kld, self.found.same_top
        cells = (
            self.name,
            self.layout,
            self.target,
            f"{self.bits:.4f}",
            f"{self.seconds:.1f}",
            f"{kld.mean:.4f} ± {kld.standard_error or 0:.4f}",
            f"{self.found.kld_median:.4f}",
            f"{self.found.kld_p99:.2f}",
            f"{100 * top.mean:.1f} ± {100 * (top.standard_error or 0):.1f} %",
            f"{self.found.perplexity.mean:.2f} (original {self.found.original_perplexity.mean:.2f})",
        )
        return f"| {' | '.join(cells)} |"


def measured(
    checkpoint: Checkpoint, method: Method, scheme: Scheme, text: Windows, judged: Tensor, folder: Path
) -> Row:
    """Compress, export, and judge what was exported."""
    choice = Choice.of(scheme.mode.value, scheme.group_size, 1.0, "int8_asym", method=method.value)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.perf_counter()
    plan = make_plan(checkpoint.layers, choice)
    tokens = text.calibration if method.needs_inputs else None
    compressed = finish(compress(checkpoint, plan, folder / WEIGHTS, tokens))
    seconds = time.perf_counter() - began
    out = export.write_folder(checkpoint, compressed, folder / "out")
    blocks = [a for a in plan.assignments if a.layer.kind is Kind.LINEAR]
    bits = 8 * sum(a.nbytes for a in blocks) / sum(a.layer.numel for a in blocks)
    return Row(method.value, str(scheme), TARGETS[scheme.mode], bits, seconds, judge(checkpoint, out, judged))


def judge(checkpoint: Checkpoint, folder: Path, ids: Tensor) -> Evaluation:
    """Return the evaluation of an exported folder's stored numbers, in fp32."""
    weights = {weight.name: weight for weight in read_recipe(folder).weights}

    def stored(layer: Layer, original: Tensor) -> Tensor:
        if layer.name not in weights:
            return original
        weight = weights[layer.name]
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            arrays = {part.name: file.get_tensor(f"{weight.name}.{part.name}") for part in weight.parts}
        return PackedTensor.of(Scheme.parse(weight.scheme), weight.shape, arrays).dequantize()

    original, other = Original(checkpoint), BlockModel(checkpoint, torch.float32, transform=stored)
    head = next(layer for layer in checkpoint.layers if layer.kind is Kind.EMBEDDING)  # which is the head as well
    table = checkpoint.read(head).float()
    heads = table, stored(head, table)
    tally = Tally(len(ids))
    for batch in ids.split(8):
        pairs = zip(batch, finish(original.hidden(batch)), finish(other.run(batch)), strict=True)
        for window, first, second in pairs:
            tally.add(window, linear(first, heads[0]), linear(second, heads[1]))
    return tally.result()


def write(rows: list[Row], split: str) -> None:
    """Put the rows into QUALITY.md, in place of those of the same method and layout."""
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    kept = {tuple(line.split(" | ")[:2]): line for line in lines if line.startswith("| ") and "KLD" not in line}
    kept |= {tuple(str(row).split(" | ")[:2]): str(row) for row in rows}
    rule = "|" + " --- |" * (HEADER.count("|") - 1)
    intro = (
        "# What compressing loses\n\n`make bench-quality` wrote this; the protocol stands in `quality.py`. "
        f"Judged on the {split} part of the text. ± is the standard error over windows.\n"
    )
    FILE.write_text("\n".join((intro, HEADER, rule, *kept.values())) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, default=os.environ.get("STUDIO_BENCH_TEXT"), help="a long English text")
    parser.add_argument("--split", choices=("tuning", "test"), default="test")
    parser.add_argument("--only", help="METHOD or METHOD:SCHEME")
    parser.add_argument("--dir", type=Path, default=Path(".pytest_cache/quality"), help="where to work")
    parser.add_argument("--windows", type=int, default=24, help="fewer, for a quick look that is not written down")
    options = parser.parse_args()
    if options.text is None:
        raise SystemExit("name a long English text: --text FILE or STUDIO_BENCH_TEXT")
    checkpoint = dithered(options.dir / "dithered")
    text = windows(Path(options.text), load_tokenizer(checkpoint.path))
    judged: Tensor = getattr(text, options.split)
    judged = judged[:: max(1, len(judged) // options.windows)][: options.windows]
    print(HEADER)
    for method, scheme in ROWS:
        if options.only is None or options.only in (method.value, f"{method.value}:{scheme}"):
            row = measured(checkpoint, method, scheme, text, judged, options.dir / "work")
            print(row, flush=True)
            if options.windows == 24:
                write([row], options.split)


if __name__ == "__main__":
    main()
