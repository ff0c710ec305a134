"""``python -m tests.parity.report``: compares every weight of the built-in model with NNCF and writes REPORT.md."""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from studio.checkpoint import open_model
from studio.checkpoint.checkpoint import Checkpoint
from studio.quantization.scheme import Scheme
from tests import hostile
from tests.conftest import ROOT
from tests.parity import test_fallback, test_ratio
from tests.parity.compare import SAME, Difference, differences
from tests.parity.nncf_side import MODES, compress, nncf, ov
from tests.parity.selection import Selection, our_table
from tests.steps import finish

FILE = ROOT / "tests" / "parity" / "REPORT.md"
NOTES = ROOT / "tests" / "parity" / "NOTES.md"
AT_ONCE = 7
"""Weights in one OpenVINO model: a block of the built-in one, so that memory stays small."""
SMALL = 48
"""Rows that leave a hostile tensor with fewer than 10,000 numbers."""


def built_in() -> Checkpoint:
    return finish(open_model.open_model(open_model.BUILTIN, paths=False))


def compared(weights: Mapping[str, Tensor], scheme: Scheme) -> tuple[int, Difference]:
    """Return how many of the weights differ in any bit, and in how many numbers."""
    names = list(weights)
    count, total = 0, SAME
    for start in range(0, len(names), AT_ONCE):
        some = {name: weights[name] for name in names[start : start + AT_ONCE]}
        found = differences(some, compress(some, scheme), scheme)
        count += len(found)
        total = sum(found.values(), total)
    return count, total


def reference_score(result: tuple[int, Difference], weights: Mapping[str, Tensor]) -> str:
    count, total = result
    if total == SAME:
        return f"all {len(weights)} equal"
    numbers = [f"{n:,} {word.replace('_', ' ')}" for word, n in asdict(total).items() if n]
    return f"{count} of {len(weights)} differ: {', '.join(numbers)}"


def formats(real: Mapping[str, Tensor]) -> Iterator[str]:
    yield "| format | weights of the built-in model | hostile tensors | the same, cut below 10,000 numbers |"
    yield "| --- | --- | --- | --- |"
    for mode in MODES:
        scheme = Scheme.of(mode, 64)
        tall = hostile.weights_for(scheme)
        small = {name: weight[:SMALL] for name, weight in hostile.WEIGHTS.items()}
        cells = [reference_score(compared(weights, scheme), weights) for weights in (real, tall, small)]
        yield f"| `{scheme}` | {' | '.join(cells)} |"


def ratios(checkpoint: Checkpoint, real: Mapping[str, Tensor]) -> Iterator[str]:
    selection = Selection(real, test_ratio.embedding(checkpoint), test_ratio.MODE, test_ratio.GROUP)
    scores = test_ratio.sensitivities(checkpoint)
    yield "| ratio | layers NNCF gives 4 bits | the same layers here | table |"
    yield "| --- | --- | --- | --- |"
    for twentieth in range(1, 21):
        ratio = twentieth / 20
        names, rows = selection.at(ratio)
        planned = test_ratio.plan(checkpoint, scores, ratio)
        same, same_table = test_ratio.primary(planned) == names, our_table(planned.distribution()) == rows
        printed = "<br>".join(" / ".join(row) for row in rows)
        yield f"| {ratio:.2f} | {len(names)} | {_says(same)} | {_says(same_table)}: {printed} |"


def misfits() -> Iterator[str]:
    yield f"| misfit | all layers | {' | '.join(test_fallback.NAMES)} |"
    yield f"| --- | --- |{' --- |' * len(test_fallback.NAMES)}"
    for misfit, all_layers in test_fallback.EXPECTED:
        schemes = test_fallback.nncf_schemes(misfit, all_layers)
        yield f"| {misfit} | {all_layers} | {' | '.join(schemes)} |"


def _says(same: bool) -> str:
    return "equal" if same else "**differs**"


def main() -> None:
    begun = time.perf_counter()
    checkpoint = built_in()
    real = test_ratio.linear_weights(checkpoint)
    sections = {
        "Formats": formats(real),
        "Ratio rule and table": ratios(checkpoint, real),
        "Layers that the group size does not divide": misfits(),
    }
    lines = [
        "# Parity with NNCF",
        "",
        f"nncf {nncf.__version__}, openvino {ov.__version__}; `make parity` writes this.",
    ]
    lines += ["", NOTES.read_text().strip()]
    for title, rows in sections.items():
        print(f"{title} …", file=sys.stderr)
        lines += ["", f"## {title}", "", *rows]
    FILE.write_text("\n".join(lines) + "\n")
    print(f"{FILE.relative_to(Path.cwd())}, {time.perf_counter() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
