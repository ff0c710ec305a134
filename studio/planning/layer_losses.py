"""A figure of every linear layer for every scheme it could take, from one pass over its weights; kept afterwards.

What the figure says is the caller's: a loss adds up what rounding moved. Knows nothing of plans.
"""

import hashlib
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from studio.base import json_cache
from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.steps import relayed
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Layer, ratio_defining
from studio.checkpoint.row_reader import chunks
from studio.planning.layer_measured import LayerMeasured, reading
from studio.quantization.quantize import quantize
from studio.quantization.rounding import tensor_params_of
from studio.quantization.scheme import Scheme

LEAST_ROWS, SAMPLED_WEIGHTS, RUNS = 64, 1 << 16, 16
"""Of a weight that is not worked on as a whole."""

Candidate = Callable[[Tensor], Tensor]
"""Rows of a weight as they are stored, [n, K] -> the same rows compressed and dequantized, fp32 [n, K]."""
Figures = dict[str, dict[str, float]]
"""Layer -> scheme -> figure; a layer that there is no loss for has none."""
Steps = Generator[Progress | LayerMeasured[Mapping[str, float]], None, Figures]
"""A measurement: each layer with its scheme -> figure once it is measured, and in the end all of them."""


@dataclass(frozen=True)
class Loss:
    """How an error in a layer's weight counts."""

    of: Callable[[Tensor], float]
    """Rows of what was moved, or of the weight itself, fp32 [n, K] -> a number that adds up over rows."""
    normalize: Callable[[float, float], float]
    """The sum over what was moved, and that over the weight -> the figure."""


Pieces = Callable[[Checkpoint, Layer], Iterator[Tensor]]
"""Reads rows [n, K] of a weight as they are stored, in turn: those that stand for the whole of it."""


def pieces(checkpoint: Checkpoint, layer: Layer) -> Iterator[Tensor]:
    """Yield all rows of a weight, a few megabytes at a time."""
    return (checkpoint.read(layer, *rows) for rows in chunks(layer))


def spread(checkpoint: Checkpoint, layer: Layer) -> Iterator[Tensor]:
    """Yield rows that stand for a weight, from runs that are spread evenly over it; all rows of one that is small.

    What errors of rounding cost varies by a third or so from row to row: a sum over 64 rows and more is off by about
    4 %, where the prediction that is made of it is off by more.
    """
    rows, width = layer.matrix
    run = 2 * -(-max(LEAST_ROWS, SAMPLED_WEIGHTS // width) // (2 * RUNS))  # even, as what chunks read is
    if rows < 2 * RUNS * run:
        yield from pieces(checkpoint, layer)
        return
    starts = [i * (rows - run) // (RUNS - 1) & ~1 for i in range(RUNS)]
    yield torch.cat([checkpoint.read(layer, start, start + run) for start in starts])


def figures(
    checkpoint: Checkpoint,
    losses: Mapping[str, Loss],
    schemes: Iterable[Scheme],
    stage: str,
    pieces_of: Pieces = pieces,
) -> Steps:
    """Return the figure of every linear layer for each of ``schemes`` whose groups divide its rows, and of embeddings
    and heads that there is a loss for.

    ``stage`` is the progress's; ``pieces_of`` reads the rows that stand for a whole weight, all of them unless
    said otherwise. Raises CheckpointError for weights that are not finite.
    """
    layers = [layer for layer in ratio_defining(checkpoint.layers, True) if layer.name in losses]
    total = sum(layer.numel for layer in layers)
    done = 0
    found: Figures = {layer.name: {} for layer in ratio_defining(checkpoint.layers)}
    for layer in layers:
        fitting = _fitting(layer, schemes)
        passes = 1 + any(scheme.mode.needs_whole for scheme in fitting)
        at = reading(stage, layer.name, done, total, passes)
        tensor_params = yield from relayed(tensor_params_of(pieces(checkpoint, layer), fitting), at)
        candidates = {str(scheme): partial(_rounded, scheme, tensor_params.get(scheme)) for scheme in fitting}
        seen = layer.numel if tensor_params else 0
        for numel, line in layer_figures(checkpoint, layer, losses[layer.name], candidates, pieces_of):
            seen += numel
            if line is not None:
                found[layer.name] = line
            yield at(seen) if line is None else LayerMeasured(layer.name, line, at(seen))
        done += layer.numel
    return found


def calibrating(step: Progress) -> Progress:
    """Return the progress of a pass over the text that figures are measured on."""
    return step.within("calibrate", "")


def layer_figures(
    checkpoint: Checkpoint,
    layer: Layer,
    loss: Loss,
    candidates: Mapping[str, Candidate],
    pieces_of: Pieces = pieces,
) -> Generator[tuple[int, dict[str, float] | None], None, None]:
    """Yield how many weights were worked on, and once more with the figure of each candidate.

    Everything is computed in fp32. Raises CheckpointError for weights that are not finite.
    """
    whole, rows = 0.0, 0
    moved = dict.fromkeys(candidates, 0.0)
    for stored in pieces_of(checkpoint, layer):
        weight = stored.float()
        whole += loss.of(weight)
        for name, candidate in candidates.items():
            moved[name] += loss.of(weight - candidate(stored))
        if not math.isfinite(whole):
            raise CheckpointError("not_finite", tensor=layer.name)
        rows += len(stored)
        yield stored.numel(), None
    scale = layer.matrix[0] / max(1, rows)
    yield 0, {name: loss.normalize(scale * value, scale * whole) for name, value in moved.items()}


def recall(file: Path, checkpoint: Checkpoint, schemes: Sequence[Scheme]) -> Figures | None:
    """Return the figures kept from an earlier visit, None when there are none or they are not of these layers."""
    found = json_cache.recall(file)
    layers = {layer.name: layer for layer in ratio_defining(checkpoint.layers, True)}
    linear = {layer.name for layer in ratio_defining(checkpoint.layers)}
    if not isinstance(found, dict) or not linear <= found.keys() <= layers.keys():
        return None
    return found if all(_is_sound(line, _fitting(layers[name], schemes)) for name, line in found.items()) else None


def file_of(checkpoint: Checkpoint, name: str, schemes: Sequence[Scheme], *how: object) -> Path:
    """Return where figures are kept: the file's name says which, of which schemes and ``how`` they were measured."""
    key = hashlib.sha256(repr((sorted(map(str, schemes)), how)).encode()).hexdigest()[:16]
    return settings().cache_dir / "survey" / f"{checkpoint.revision}-{name}-{key}.json"


def _rounded(scheme: Scheme, tensor_params: Tensor | None, weight: Tensor) -> Tensor:
    """Return rows of a layer as the whole of it is rounded, with what the whole shares."""
    return quantize(weight, scheme, tensor_params).packed.dequantize()


def _fitting(layer: Layer, schemes: Iterable[Scheme]) -> list[Scheme]:
    return [scheme for scheme in schemes if scheme.fits(layer.matrix[1])]


def _is_sound(line: object, schemes: Sequence[Scheme]) -> bool:
    """Return whether these can be a layer's figures: one for each scheme, or none at all."""
    if not isinstance(line, dict) or (line and line.keys() != {str(scheme) for scheme in schemes}):
        return False
    return all(isinstance(figure, float) and 0 <= figure < math.inf for figure in line.values())
