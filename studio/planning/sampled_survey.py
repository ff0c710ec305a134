"""A survey from a sample: a few runs of rows of each weight, so that a model of any size costs some hundred megabytes.

Each relative error comes with a confidence interval from the variance between runs. NNCF's sensitivity is a maximum
over channels, which a sample only bounds from one side: a plan made from it is an estimate. Modes in which a whole
tensor shares numbers are left out: some rows do not tell them. Knows no plan, and not how rows are fetched.
"""

import hashlib
import math
import random
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.special import stdtrit
from torch import Tensor

from studio.base import json_cache
from studio.base.device import moved
from studio.base.errors import CheckpointError, SchemeError
from studio.base.prefetch import in_threads
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.checkpoint.byte_ranges import ByteRanges
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Layer, ratio_defining
from studio.checkpoint.row_reader import chunk_rows
from studio.planning.layer_measured import LayerMeasured
from studio.planning.survey import Wanted, candidates, score
from studio.quantization.quantize import Measured, measure, relative
from studio.quantization.scheme import Scheme

RUNS = 8
RUN_WEIGHTS = 1 << 15
"""Of a run, at least: consecutive rows, so that it is one range of bytes. One of fewer takes as long to fetch."""
CONFIDENCE = 0.95
SEED = 0
LARGEST = 1.0
"""No weight moves further than to zero, which every format has."""
THREADS, DEPTH = 8, 16
"""How many runs are read at once, and ahead: a server far away is asked for several before the first one comes."""
BEAT = 0.4
"""Seconds without a word, at most."""
VERSION = 1
"""Raised when the figures change their meaning: those kept on disk are then not read any more."""


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


Sample = dict[str, SampledLayer]
"""What a sample tells of a model, by layer."""


@dataclass(frozen=True)
class Draw:
    """What is read of one layer."""

    layer: Layer
    runs: list[tuple[int, int]]
    """The first row of each, and the one after the last."""
    nbytes: int
    """In the file."""

    @property
    def rows(self) -> int:
        return sum(stop - start for start, stop in self.runs)


def draws(checkpoint: Checkpoint, runs: int = RUNS, rows: int | None = None, seed: int = SEED) -> list[Draw]:
    """Return what is read of each layer, linear ones first: ``runs`` runs of rows, or all rows if fewer.

    A run has ``rows`` rows or, without, as many as make it worth asking for; where the file has rows as columns, which
    only reading a whole matrix gives, it has all rows of a matrix.
    """
    drawn = []
    for layer in ratio_defining(checkpoint.layers, True):
        height, width = layer.matrix
        length = max(rows or -(-RUN_WEIGHTS // width), checkpoint.rows_at_once(layer))
        # A seed of its own for each layer: the same rows whichever layers were read before.
        starts = run_starts(height, runs, length, random.Random(f"{seed} {layer.name}"))
        parts = [(start, min(start + length, height)) for start in starts]
        drawn.append(Draw(layer, parts, sum(checkpoint.read_bytes(layer, *part) for part in parts)))
    return drawn


def sampled_survey(
    checkpoint: Checkpoint,
    ranges: ByteRanges | None = None,
    runs: int = RUNS,
    rows: int | None = None,
    seed: int = SEED,
    wanted: Wanted | None = None,
) -> Generator[Progress | LayerMeasured[SampledLayer], None, Sample]:
    """Yield each layer as it is sampled, and twice a second; return what the sample tells of all of them.

    ``ranges`` is where the bytes come from, where the model is not on this machine. What was found before is not read
    again. Raises CheckpointError for a damaged file or weights that are not numbers, and what ``ranges`` raises.
    """
    file = _file(checkpoint, runs, rows, seed)
    found = _recalled(file, checkpoint)
    drawn = draws(checkpoint, runs, rows, seed)
    missing = [(draw, _missing(draw.layer, found, wanted or {})) for draw in drawn]
    todo = [(draw, schemes) for draw, schemes in missing if schemes]
    total = sum(draw.nbytes for draw, _ in todo)
    done = 0

    def read(part: tuple[Layer, int, int]) -> Tensor:
        return checkpoint.read(*part, ranges)

    try:
        with in_threads(read, [(draw.layer, *run) for draw, _ in todo for run in draw.runs], THREADS, DEPTH) as reads:
            for draw, schemes in todo:
                parts = []
                for _ in draw.runs:
                    part = next(reads)
                    while wait([part], BEAT).not_done:
                        yield Progress.of_bytes("sample", done, total)
                    parts.append(_measured(part.result(), draw.layer, schemes))
                done += draw.nbytes
                line = _told(draw, schemes, parts)
                before = found.get(draw.layer.name)
                errors = line.errors if before is None else {**before.errors, **line.errors}
                found[draw.layer.name] = SampledLayer(errors, line.sensitivity, line.rows)
                progress = Progress.of_bytes("sample", done, total)
                yield LayerMeasured(draw.layer.name, found[draw.layer.name], progress)
    finally:
        if todo:
            _keep(file, found)
    return {draw.layer.name: found[draw.layer.name] for draw in drawn}


def recall(checkpoint: Checkpoint, runs: int = RUNS, rows: int | None = None, seed: int = SEED) -> Sample:
    """Return what is kept of a sample from earlier visits: nothing where it is not whole, or not this model's."""
    return _recalled(_file(checkpoint, runs, rows, seed), checkpoint)


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
    deviation = math.sqrt((1 - share) * residual / count) / (square / count)
    reach = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * deviation
    return Interval(error, math.sqrt(max(0.0, ratio - reach)), min(LARGEST, math.sqrt(ratio + reach)))


def _missing(layer: Layer, found: Sample, wanted: Wanted) -> list[Scheme]:
    """Return the schemes a layer is still to be sampled in."""
    line = found.get(layer.name)
    asked = dict.fromkeys((*candidates(layer), *wanted.get(layer.name, ())))
    return [s for s in asked if not s.mode.needs_whole and (line is None or str(s) not in line.errors)]


def _measured(run: Tensor, layer: Layer, schemes: Sequence[Scheme]) -> Measured:
    first, *rest = (measure(moved(part), schemes) for part in torch.split(run, chunk_rows(layer.matrix[1])))
    sums = sum(rest, start=first)
    if not math.isfinite(sums.square + sums.channel_error + sum(sums.differences.values())):
        raise CheckpointError("not_finite", tensor=layer.source)
    return sums


def _told(draw: Draw, schemes: Sequence[Scheme], parts: Sequence[Measured]) -> SampledLayer:
    errors = {
        str(scheme): interval([(part.differences[scheme], part.square) for part in parts], draw.rows, draw.layer)
        for scheme in schemes
    }
    return SampledLayer(errors, score(max((part.channel_error for part in parts), default=0.0)), draw.rows)


def _file(checkpoint: Checkpoint, runs: int, rows: int | None, seed: int) -> Path:
    """Return where a sample's figures are kept: its name says how it was drawn."""
    drawn = hashlib.sha256(repr((VERSION, runs, rows or RUN_WEIGHTS, rows is None, seed)).encode()).hexdigest()[:16]
    return settings().cache_dir / "survey" / f"{checkpoint.revision}-sample-{drawn}.json"


def _keep(file: Path, found: Sample) -> None:
    """Write what a sample tells for the next visit."""
    lines = {
        name: {
            "rows": line.rows,
            "sensitivity": line.sensitivity,
            "errors": {scheme: [i.error, i.low, i.high] for scheme, i in line.errors.items()},
        }
        for name, line in found.items()
    }
    json_cache.keep(file, lines)


def _recalled(file: Path, checkpoint: Checkpoint) -> Sample:
    try:
        lines: Mapping[str, dict[str, object]] = json_cache.recall(file)
        heights = {layer.name: layer.matrix[0] for layer in ratio_defining(checkpoint.layers, True)}
        found = {name: _sound(line, heights[name]) for name, line in lines.items()}
        for scheme in {scheme for line in found.values() for scheme in line.errors}:
            Scheme.parse(scheme)
        return found
    except (ValueError, KeyError, TypeError, AttributeError, SchemeError):
        return {}


def _sound(line: dict[str, object], height: int) -> SampledLayer:
    """Return what was kept of a layer. Raises what fails where it is not that: it is a file, which anyone may write."""
    rows, sensitivity, errors = line["rows"], line["sensitivity"], line["errors"]
    if type(rows) is not int or not 0 <= rows <= height or not isinstance(errors, dict):
        raise ValueError
    found = {scheme: Interval(*numbers) for scheme, numbers in errors.items()}
    numbers = [sensitivity, *(x for i in found.values() for x in (i.error, i.low, i.high))]
    if not all(type(x) is float and 0 <= x < math.inf for x in numbers):
        raise ValueError
    return SampledLayer(found, sensitivity, rows)  # type: ignore[arg-type]
