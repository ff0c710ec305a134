"""A front's figures, for machines (``--json``, ``--csv``) and as lines to read in a terminal. Decides nothing."""

import csv
import io
import json
import shlex
from typing import Any

from studio.base.text import text
from studio.base.units import format_bytes
from studio.cli.report import Rows
from studio.cli.terminal import language, say
from studio.session.front import Front, FrontPoint, Pair

CERTAIN = 2.0
"""Standard errors from which a difference is called one."""


def front_facts(front: Front) -> dict[str, Any]:
    """Return a front for ``--json``: every point with its recipe, and those that were measured in pairs."""
    return {
        "model": front.model,
        "weights": front.weights,
        "original_bytes": front.original_bytes,
        "floor": None if front.floor is None else front.floor.kld.mean,
        "points": [_facts(point) | {"recipe": _recipe(point)} for point in front.points],
        "pairs": [
            {
                "better": pair.better.name,
                "worse": pair.worse.name,
                "gain": pair.gain.mean,
                "standard_error": pair.gain.standard_error,
                "windows": pair.windows,
            }
            for pair in front.pairs()
        ],
    }


def front_csv(front: Front) -> str:
    """Return the points as a table: what ``--json`` has of each, the recipe as JSON."""
    lines = [_facts(point) | {"recipe": json.dumps(_recipe(point))} for point in front.points]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _facts(point: FrontPoint) -> dict[str, Any]:
    found = point.evaluation
    return {
        "kind": point.kind,
        "name": point.name,
        "bytes": point.nbytes,
        "bits_per_weight": point.bits_per_weight,
        "kld": point.kld,
        "source": "predicted" if found is None else "measured",
        "predicted": point.predicted,
        "kld_standard_error": None if found is None else found.kld.standard_error,
        "same_top": None if found is None else found.same_top.mean,
        "tokens": None if found is None else found.tokens,
        "command": shlex.join(("python", "-m", "studio", *point.command)),
    }


def _recipe(point: FrontPoint) -> dict[str, Any] | None:
    return None if point.choice is None else point.choice.words()


def front_rows(front: Front) -> Rows:
    """Return a front to be read: the smallest first, then what was compared in pairs."""
    rows = [(f"{point.name}  {format_bytes(point.nbytes)}", _loss(point)) for point in front.points]
    if front.floor is not None:
        rows.append((say("floor"), f"{front.floor.kld.mean:.4f}"))
    return rows + [("", sentence(pair)) for pair in front.pairs()]


def _loss(point: FrontPoint) -> str:
    found = point.evaluation
    kind = text(f"front.kind_{point.kind}", language())
    if found is None:
        return f"~ {point.kld:.4f}  {kind}, {text('front.predicted', language())}"
    error = "" if found.kld.standard_error is None else f" ± {found.kld.standard_error:.4f}"
    return f"{found.kld.mean:.4f}{error}  {kind}, {text('front.measured', language())}"


def sentence(pair: Pair) -> str:
    """Return which of two is better, by how much on the same text, or that they are alike."""
    error = pair.gain.standard_error
    gain = f"{pair.gain.mean:.4f}" + ("" if error is None else f" ± {error:.4f}")
    is_certain = error is not None and pair.gain.mean >= CERTAIN * error
    key = "front_better" if is_certain else "front_alike"
    return say(key, better=pair.better.name, worse=pair.worse.name, gain=gain, windows=pair.windows)
