"""The tables of ``make bench-export``: what was asked for beside what was found. Knows no files and no models."""

import math
import statistics
from collections.abc import Mapping

from tests.bench.export_errors import Errors
from tests.bench.export_exact import Exactness
from tests.bench.export_row import MIX, SUPER, Row

KLD_GOALS = {
    "q4_0": (0.5, 0.4), "q4_1": (0.5, 0.4), "iq4_nl": (0.5, 0.4), "q5_0": (0.6, 0.45), "q5_1": (0.6, 0.45),
    MIX: (0.5, 0.35),
}  # fmt: skip
ERROR_GOALS = dict.fromkeys(SUPER, (0.7, 0.5))
COMPARED = ("llama.cpp + imatrix", "ours (`best`)", "ratio")
NOT_MEASURED = "not measured"


def exact_table(found: Mapping[str, Exactness]) -> str:
    lines = [["type", "our packed product", "its numbers in fp32", "predicted for it", "with inputs rounded"]]
    for mode, one in found.items():
        pairs = (
            (one.packed, one.packed_logit),
            (one.fp32, one.fp32_logit),
            (one.predicted, None),
            (one.rounded, one.rounded_logit),
        )
        cells = [f"{kld:.1e}" + ("" if logit is None else f" (a logit: {logit:.2f})") for kld, logit in pairs]
        lines.append([mode.upper(), *cells])
    return table(lines)


def kld_ratio(mine: Row, theirs: Row) -> tuple[float, float]:
    """Return the ratio of two means over the same windows, and its standard error to first order."""
    ratio = statistics.fmean(mine.kld) / statistics.fmean(theirs.kld)
    left = [a - ratio * b for a, b in zip(mine.kld, theirs.kld, strict=True)]
    return ratio, statistics.stdev(left) / math.sqrt(len(left)) / statistics.fmean(theirs.kld)


def told(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}"


def verdict(ratio: float, must: float, goal: float) -> str:
    return "goal reached" if ratio <= goal else "must reached, goal not" if ratio <= must else "falls short of both"


def table(lines: list[list[str]]) -> str:
    head, *rest = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join((head, "|" + " --- |" * len(lines[0]), *rest)) + "\n"


def kld_table(modes: tuple[str, ...], rows: Mapping[str, Row]) -> str:
    lines = [["file", "bytes, llama.cpp's / ours", *COMPARED, "same top", "must", "goal", ""]]
    for mode in modes:
        theirs, mine = rows.get(f"llama.cpp {mode}"), rows.get(f"ours {mode}")
        if theirs is None or mine is None:
            known = ["" if row is None else told(row.kld) for row in (theirs, mine)]
            lines.append([mode.upper(), "", *known, NOT_MEASURED, *[""] * 4])
            continue
        ratio, error = kld_ratio(mine, theirs)
        top = " / ".join(f"{100 * statistics.fmean(row.same_top):.1f}" for row in (theirs, mine))
        goals = KLD_GOALS.get(mode)
        asked = ["", "", ""] if goals is None else [f"{goals[0]:.2f}", f"{goals[1]:.2f}", verdict(ratio, *goals)]
        lines.append([
            mode.upper(), f"{theirs.nbytes:,} / {mine.nbytes:,}", told(theirs.kld), told(mine.kld),
            f"**{ratio:.3f}** ± {error:.3f}", f"{top} %", *asked,
        ])  # fmt: skip
    return table(lines)


def error_table(errors: Mapping[str, Errors]) -> str:
    lines = [["type", *COMPARED, "its root", "worst layer's ratio", "must", "goal", ""]]
    for mode, (must, goal) in ERROR_GOALS.items():
        theirs, mine = errors.get(f"llama.cpp {mode}"), errors.get(f"ours {mode}")
        if theirs is None or mine is None:
            lines.append([mode.upper(), "", "", NOT_MEASURED, *[""] * 5])
            continue
        ratio = mine.mean / theirs.mean
        worst = max(a / b for a, b in zip(mine.layers.values(), theirs.layers.values(), strict=True))
        lines.append([
            mode.upper(), f"{theirs.mean:.3e}", f"{mine.mean:.3e}", f"**{ratio:.3f}**", f"{math.sqrt(ratio):.3f}",
            f"{worst:.2f}", f"{must:.2f}", f"{goal:.2f}", verdict(ratio, must, goal),
        ])  # fmt: skip
    return table(lines)
