"""Rounding whose errors are made up for on both sides: by later input channels, and by later output channels.

Methods of one side ask how much an input channel matters; but what the errors of two output channels do to the
predictions depends on each other as well. With second moments H of the inputs and G of the gradients that come back to
the outputs, a weight's error E costs about tr(G E H E^T). Rows are rounded in lots, each by the method of one side;
before the next lot is rounded, all rows still to come make up for the error of those before, as GPTQ's columns do.

Sources: the Kronecker factors of the Fisher information, K-FAC (Martens and Grosse 2015); rounding by them, YAQA
(Tseng et al. 2025); the step from lot to lot is GPTQ's (Frantar et al. 2022). Knows no model.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import Blocks
from studio.quantization.rounding.least_squares import least_squares
from studio.quantization.rounding.nearest import dequantize
from studio.quantization.rounding.quantized_weight import QuantizedWeight
from studio.quantization.rounding.statistics import DAMP, Statistics
from studio.quantization.scheme import Scheme

LOTS = 8
"""In how many lots the rows are rounded at most: each goes through all columns again."""
ROWS = 96
"""In a lot, at least."""
OUTPUT_DAMP, AT_TOKENS = 0.3, 32768
"""Added to G's diagonal, in mean diagonals, where it was found from as many tokens; of fewer, by their root, more."""

OneSided = Callable[[Tensor, Scheme, QuantizedWeight, Statistics], QuantizedWeight]
"""Rounds rows [n, K] on the grids of a start, by statistics of their inputs."""


def two_sided(
    weights: Sequence[Tensor],
    scheme: Scheme,
    statistics: Statistics,
    outputs: Sequence[Statistics | None],
    one_sided: OneSided,
    pause: Callable[[], None] = lambda: None,
) -> list[QuantizedWeight]:
    """Return weights [N_i, K] that are given the same, each rounded with its G [N_i, N_i] in view.

    None stands for a weight of which no gradients are known: its rows are rounded as by ``one_sided`` alone. ``pause``
    is called before each lot.
    """
    rows = [_Rows(weight, scheme, statistics, given) for weight, given in zip(weights, outputs, strict=True)]
    while any(each.is_left for each in rows):
        pause()
        now = [each for each in rows if each.is_left]
        lots = [each.lot() for each in now]
        targets, grids = torch.cat([lot for lot, _ in lots]), joined([grid for _, grid in lots])
        found = one_sided(targets, scheme, grids, statistics)
        first = 0
        for each, (lot, _) in zip(now, lots, strict=True):
            each.accept(found.rows(slice(first, first + len(lot))), scheme)
            first += len(lot)
    return [each.result() for each in rows]


class _Rows:
    """A weight whose rows are rounded in lots, those that matter most first."""

    def __init__(self, weight: Tensor, scheme: Scheme, statistics: Statistics, outputs: Statistics | None) -> None:
        count = len(weight)
        self._done: list[QuantizedWeight] = []
        self._first = 0
        self._order, self._upper = torch.arange(count, dtype=torch.int64, device=weight.device), None
        self._size = count
        if outputs is not None and outputs.is_active:
            damp = OUTPUT_DAMP * (AT_TOKENS / max(1, outputs.tokens)) ** 0.5
            moments = outputs.hessian.clone()
            moments.diagonal().add_(max(0.0, damp - DAMP) * float(moments.diagonal().mean()))
            self._order, self._upper = Statistics(moments, outputs.tokens).inverse_cholesky
            self._size = max(ROWS, -(-count // LOTS))
        self._left = weight.float()[self._order]
        self._start = least_squares(self._left, scheme, statistics.power)

    @property
    def is_left(self) -> bool:
        return self._first < len(self._left)

    def lot(self) -> tuple[Tensor, QuantizedWeight]:
        """Return the rows whose turn it is, with what was made up for so far, and their grids."""
        rows = slice(self._first, self._first + self._size)
        return self._left[rows], self._start.rows(rows)

    def accept(self, found: QuantizedWeight, scheme: Scheme) -> None:
        """Take the lot as rounded; the rows after it make up for its error."""
        first, last = self._first, self._first + len(found.codes)
        self._done.append(found)
        if self._upper is not None and last < len(self._left):
            stored = found.stored(scheme.mode.stored_as.scale_dtype)
            error = self._left[first:last] - dequantize(stored, scheme.mode)
            own = self._upper[first:last, first:last].T
            passed = torch.linalg.solve_triangular(own, error, upper=False)
            self._left[last:].addmm_(self._upper[first:last, last:].T, passed, alpha=-1)
        self._first = last

    def result(self) -> QuantizedWeight:
        """Return the weight, its rows where they were."""
        return joined(self._done).rows(self._order.argsort())


def joined(parts: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """Return weights of one grid as one, row under row; what a tensor shares is the first one's."""
    first = parts[0]
    if len(parts) == 1:
        return first
    blocks = None
    if first.blocks is not None:
        all_blocks = [part.blocks for part in parts if part.blocks is not None]
        blocks = Blocks(
            torch.cat([each.codes for each in all_blocks]),
            torch.cat([each.d for each in all_blocks]),
            _cat([each.dmin for each in all_blocks]),
            _cat([each.scales for each in all_blocks]),
            _cat([each.mins for each in all_blocks]),
        )
    return QuantizedWeight(
        torch.cat([part.codes for part in parts]),
        torch.cat([part.scale for part in parts]),
        _cat([part.zero_point for part in parts]),
        first.tensor_params,
        blocks,
        _cat([part.offset for part in parts]),
    )


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Return what all have, row under row, None where the format has no such thing."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None
