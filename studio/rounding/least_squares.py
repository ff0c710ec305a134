"""Scale and zero point by weighted least squares, over clipped ranges: the best of twenty starts for each group.

What is minimised is sum_k e_k (w_k - ŵ_k)^2, each group by itself. Of a weight that meets inputs of known power, e is
E[x^2] sqrt(mean w^2 + w^2): large weights count more, which generalises better than the power alone.
"""

import torch
from torch import Tensor

from studio.rounding.nearest import GRIDS, grouped, round_to_nearest
from studio.rounding.rounded import EPSILON, Grid, Rounded
from studio.scheme import Scheme

RATIOS = tuple(1 - 0.5 * step / 19 for step in range(20))
"""Shares of a group's range that the first grid spans."""
PIECE = 1 << 20
"""Weights worked on at once."""


def least_squares(
    weight: Tensor,
    scheme: Scheme,
    power: Tensor | None = None,
    shared: Tensor | None = None,
    ratios: tuple[float, ...] = RATIOS,
    fits: int = 1,
) -> Rounded:
    """Return ``weight`` [N, K] on the grids that fit it best; the scale is what a file will hold, in fp32.

    ``power`` is E[x^2] [K], None for weights that all count the same; ``fits`` how often scale and codes take turns.
    Formats whose scales are not free (powers of two, E4M3) are rounded to nearest.
    """
    start = round_to_nearest(weight, scheme, shared)
    if scheme.mode.stored_as.scale_dtype != "F16":
        return start
    step = max(1, PIECE // weight.shape[1])
    pieces = [
        _best(grouped(weight[row : row + step], scheme), _rows(start, row, row + step), scheme, power, ratios, fits)
        for row in range(0, len(weight), step)
    ]
    codes, scale, zero = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    zeros = zero.to(torch.uint8) if scheme.mode.has_zero_point else None
    return Rounded(codes.to(torch.uint8).reshape(weight.shape), scale, zeros, start.shared)


def importance(weights: Tensor, power: Tensor | None) -> Tensor:
    """Return e [N, G, g] of grouped weights [N, G, g] whose input channels have ``power`` [K]."""
    if power is None:
        return torch.ones_like(weights)
    square = weights.square()
    powers = power.to(weights.device, torch.float32).reshape(1, *weights.shape[1:])
    return powers * (square.mean(2, keepdim=True) + square).sqrt_()


def _best(
    weights: Tensor,
    start: Rounded,
    scheme: Scheme,
    power: Tensor | None,
    ratios: tuple[float, ...],
    fits: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes [N, G, g], scale and zero point [N, G] of the least error among ``start`` and every ratio's."""
    grid = GRIDS[scheme.mode]
    given = importance(weights, power)
    scale, zero = start.scale.unsqueeze(2).half().float(), _zero(start).unsqueeze(2)
    codes = start.codes.reshape(weights.shape).float()
    error = _error(weights, given, grid, codes, scale, zero, start.shared)
    first = start.scale.unsqueeze(2), zero
    low, high = weights.amin(2, keepdim=True), weights.amax(2, keepdim=True)
    for ratio in ratios:
        if scheme.mode.has_zero_point:
            top = 2**scheme.mode.bits - 1
            s = ((high - low) * (ratio / top)).clamp_(min=EPSILON)
            z = (top / 2 - (high + low) / (2 * s)).round_().clamp_(0, top)
        else:
            s, z = first[0] * ratio, first[1]
        for _ in range(fits):
            values = grid.values(grid.encode(weights / s + z, start.shared), start.shared) - z
            weighted = given * values
            fitted = (weighted * weights).sum(2, keepdim=True) / (weighted * values).sum(2, keepdim=True)
            s = torch.where(fitted.half().abs() >= EPSILON, fitted, s).half().float()  # not for NaN either
        c = grid.encode(weights / s + z, start.shared).float()
        e = _error(weights, given, grid, c, s, z, start.shared)
        better = e < error
        error, codes = torch.where(better, e, error), torch.where(better, c, codes)
        scale, zero = torch.where(better, s, scale), torch.where(better, z, zero)
    return codes, scale.squeeze(2), zero.squeeze(2)


def _error(
    weights: Tensor, given: Tensor, grid: Grid, codes: Tensor, scale: Tensor, zero: Tensor, shared: Tensor | None
) -> Tensor:
    values = grid.values(codes.to(torch.uint8), shared) - zero
    return (given * (values.mul_(scale) - weights).square_()).sum(2, keepdim=True)


def _zero(rounded: Rounded) -> Tensor:
    return torch.zeros_like(rounded.scale) if rounded.zero_point is None else rounded.zero_point.float()


def _rows(rounded: Rounded, start: int, stop: int) -> Rounded:
    zeros = None if rounded.zero_point is None else rounded.zero_point[start:stop]
    return Rounded(rounded.codes[start:stop], rounded.scale[start:stop], zeros, rounded.shared)
