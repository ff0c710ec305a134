"""How far a model's weights are from another's, tensor by tensor: ‖W − Ŵ‖ / ‖W‖. Reads a few rows at a time.

Knows neither how they were quantized nor what the difference does to the answers: that is what ``evaluate`` measures.
"""

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.row_reader import chunks

ReadRows = Callable[[Layer, int, int], Tensor]
"""A weight, and from which of its rows to which -> these, [rows, K]."""


@dataclass(frozen=True)
class WeightError:
    """Sums of squares, so that those of several tensors can be added."""

    difference: float
    """‖W − Ŵ‖²."""
    weights: float
    """‖W‖²."""

    @property
    def relative(self) -> float:
        """‖W − Ŵ‖ / ‖W‖; 0 of two tensors of zeros, infinite where only the original is one."""
        if not self.difference:
            return 0.0
        return math.sqrt(self.difference / self.weights) if self.weights else math.inf

    def __add__(self, other: "WeightError") -> "WeightError":
        return WeightError(self.difference + other.difference, self.weights + other.weights)


def weight_errors(
    layers: Iterable[Layer], read: ReadRows, original: Checkpoint
) -> Generator[Progress, None, dict[str, WeightError]]:
    """Yield while every weight of ``layers`` is compared with that of ``original``; return the errors by layer.

    Norms and biases, which nobody quantizes, are left out. Raises CheckpointError where the original has no such tensor
    or one of another shape: it is of another model.
    """
    weights = [layer for layer in layers if layer.kind is not Kind.OTHER]
    theirs = {name: layer for layer in original.layers for name in (layer.name, *layer.tied)}
    for layer in weights:
        name = next((each for each in (layer.name, *layer.tied) if each in theirs), None)
        if name is None or theirs[name].shape != layer.shape:
            raise CheckpointError("other_model", tensor=layer.name[:120], model=original.title[:80])
    total, done = sum(layer.numel for layer in weights), 0
    found: dict[str, WeightError] = {}
    for layer in weights:
        twin = theirs[next(each for each in (layer.name, *layer.tied) if each in theirs)]
        sums = WeightError(0.0, 0.0)
        for start, stop in chunks(layer):
            yield Progress("compare", done, total, layer.name)
            exact, own = (rows.float() for rows in (original.read(twin, start, stop), read(layer, start, stop)))
            difference = float((exact - own).square().sum(dtype=torch.float64))
            sums += WeightError(difference, float(exact.square().sum(dtype=torch.float64)))
            done += (stop - start) * layer.matrix[1]
        if not math.isfinite(sums.difference) or not math.isfinite(sums.weights):
            raise CheckpointError("not_finite", tensor=layer.name[:120])
        found[layer.name] = sums
    yield Progress("compare", total, total)
    return found
