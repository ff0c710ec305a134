"""A survey from a sample: a few runs of rows of each weight, so that a model of any size costs some hundred megabytes.

Each relative error comes with a confidence interval from the variance between runs. NNCF's sensitivity is a maximum
over channels, which a sample only bounds from one side: a plan made from it is an estimate.
"""

import math
import random
from collections.abc import Generator
from dataclasses import dataclass

from scipy.stats import t as student

from studio.architecture import Layer, ratio_defining
from studio.checkpoint import Checkpoint
from studio.device import moved
from studio.errors import CheckpointError
from studio.quantize import Measured, measure, relative
from studio.scheme import Scheme
from studio.survey import candidates, score

RUNS = 8
ROWS = 16
"""Of a run: consecutive, so that a run is one range of bytes."""
CONFIDENCE = 0.95
SEED = 0
LARGEST = 1.0
"""No weight moves further than to zero, which every format has."""


@dataclass(frozen=True)
class Interval:
    """A relative error and where the true one lies, with 95 % confidence."""

    error: float
    low: float
    high: float


@dataclass(frozen=True)
class SampledLayer:
    """What a sample tells of one layer."""

    errors: dict[str, Interval]
    """By scheme. The interval has no width where all rows were read."""
    sensitivity: float
    """NNCF's score of the rows read: the true one is this or lower."""
    rows: int
    """How many were read."""


@dataclass(frozen=True)
class Sampled:
    """One layer is done."""

    layer: str
    found: SampledLayer
    done: int
    total: int
    """Layers."""


def sampled_survey(
    checkpoint: Checkpoint, runs: int = RUNS, rows: int = ROWS, seed: int = SEED
) -> Generator[Sampled, None, dict[str, SampledLayer]]:
    """Yield each layer as it is sampled, linear ones first: ``runs`` runs of ``rows`` rows, or all rows if fewer.

    Raises CheckpointError for a damaged file or weights that are not numbers.
    """
    layers = ratio_defining(checkpoint.layers, True)
    found = {}
    for done, layer in enumerate(layers, 1):
        # A seed of its own for each layer: the same rows whichever layers were read before.
        starts = run_starts(layer.matrix[0], runs, rows, random.Random(f"{seed} {layer.name}"))
        parts = [_measured(checkpoint, layer, start, min(start + rows, layer.matrix[0])) for start in starts]
        read = sum(min(rows, layer.matrix[0] - start) for start in starts)
        schemes = candidates(layer)
        errors = {str(s): interval([(p.differences[s], p.square) for p in parts], read, layer) for s in schemes}
        worst = max((part.channel_error for part in parts), default=0.0)
        found[layer.name] = SampledLayer(errors, score(worst), read)
        yield Sampled(layer.name, found[layer.name], done, len(layers))
    return found


def run_starts(height: int, runs: int, rows: int, chance: random.Random) -> list[int]:
    """Return where the runs begin: different ones of the matrix's pieces of ``rows`` rows, in order; all if few."""
    pieces = -(-height // rows)
    if pieces <= runs:
        return [piece * rows for piece in range(pieces)]
    return [piece * rows for piece in sorted(chance.sample(range(pieces), runs))]


def interval(runs: list[tuple[float, float]], read: int, layer: Layer) -> Interval:
    """Return the error and its confidence interval from each run's (‖W - Ŵ‖², ‖W‖²).

    The ratio of two sums over clusters, with the variance of its linearisation and the correction for a finite
    population (Cochran, Sampling Techniques, 3rd edition, section 6.4 and 2.8).
    """
    difference, square = sum(d for d, _ in runs), sum(s for _, s in runs)
    error = relative(difference, square)
    count, share = len(runs), read / max(1, layer.matrix[0])
    if share >= 1:
        return Interval(error, error, error)
    if count < 2 or not square:  # one run, or nothing but zeros, says nothing of the others
        return Interval(error, 0.0, LARGEST)
    ratio = difference / square
    residual = sum((d - ratio * s) ** 2 for d, s in runs) / (count - 1)
    spread = math.sqrt((1 - share) * residual / count) / (square / count)
    reach = float(student.ppf(0.5 + CONFIDENCE / 2, count - 1)) * spread
    return Interval(error, math.sqrt(max(0.0, ratio - reach)), min(LARGEST, math.sqrt(ratio + reach)))


def _measured(checkpoint: Checkpoint, layer: Layer, start: int, stop: int) -> Measured:
    schemes: list[Scheme] = candidates(layer)
    part = measure(moved(checkpoint.read(layer, start, stop)), schemes)
    if not math.isfinite(part.square + part.channel_error + sum(part.differences.values())):
        raise CheckpointError("not_finite", tensor=layer.source)
    return part
