"""Scale and zero point or offset of each group by weighted least squares: the best of several clipped ranges.

What is minimised is sum_k e_k (w_k - ŵ_k)^2, each group by itself. Of a weight that meets inputs of known power, e is
E[x^2] sqrt(mean w^2 + w^2): large weights count more, which generalises better than the power alone. Knows no model,
and not where the statistics come from.
"""

import torch
from torch import Tensor

from studio.quantization.ggml.fit import fit
from studio.quantization.rounding.affine import best_line
from studio.quantization.rounding.nearest import grouped, in_blocks, round_to_nearest
from studio.quantization.rounding.quantized_weight import EPSILON, NumberFormat, QuantizedWeight
from studio.quantization.scheme import Scheme

RATIOS = tuple(1 - 0.5 * step / 19 for step in range(20))
"""Shares of a group's range that the first grid spans."""
PIECE = 1 << 18
"""Weights worked on at once: 1 MB of fp32, which fits a core's cache."""


def least_squares(
    weight: Tensor,
    scheme: Scheme,
    power: Tensor | None = None,
    tensor_params: Tensor | None = None,
    ratios: tuple[float, ...] = RATIOS,
    iterations: int = 1,
) -> QuantizedWeight:
    """Return ``weight`` [N, K] on the grids that fit it best; the scale is what a file will hold, in fp32.

    ``power`` is E[x^2] [K], None for weights that all count the same; ``iterations``: how often codes
    and scale are fitted in turn. Formats whose scales are not free (powers of two, E4M3) are rounded to nearest.
    """
    if scheme.mode.is_in_blocks:
        return in_blocks(fit(weight, scheme.mode.block_format, counts(weight, scheme, power), ratios))
    start = round_to_nearest(weight, scheme, tensor_params)
    if scheme.mode.stored_as.scale_dtype != "F16":
        return start
    step = max(1, PIECE // weight.shape[1])
    slabs = [slice(row, row + step) for row in range(0, len(weight), step)]
    pieces = [
        _best_grid_per_group(grouped(weight[slab], scheme), start.rows(slab), scheme, power, ratios, iterations)
        for slab in slabs
    ]
    codes, scale, zero = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    codes = codes.to(torch.uint8).reshape(weight.shape)
    if start.offset is not None:
        return QuantizedWeight(codes, scale, None, offset=zero)
    zeros = zero.to(torch.uint8) if scheme.mode.has_zero_point else None
    return QuantizedWeight(codes, scale, zeros, start.tensor_params)


def counts(weight: Tensor, scheme: Scheme, power: Tensor | None) -> Tensor | None:
    """Return e [N, K] of a weight [N, K], None where all count the same."""
    return None if power is None else importance(grouped(weight, scheme), power).reshape(weight.shape)


def importance(weights: Tensor, power: Tensor | None) -> Tensor:
    """Return e [N, G, g] of grouped weights [N, G, g] whose input channels have ``power`` [K]."""
    if power is None:
        return torch.ones_like(weights)
    square = weights.square()
    powers = power.to(weights.device, torch.float32).reshape(1, *weights.shape[1:])
    return powers * (square.mean(2, keepdim=True) + square).sqrt_()


def _best_grid_per_group(
    weights: Tensor,
    start: QuantizedWeight,
    scheme: Scheme,
    power: Tensor | None,
    ratios: tuple[float, ...],
    iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes [N, G, g], scale and zero point or offset [N, G] of the least error among ``start`` and all ratios'.

    Of codes v the best scale is s = <v, w> / <v, v>, which leaves <w, w> - s <v, w>; <,> is weighted by e.
    """
    grid = scheme.mode.grid
    importances = importance(weights, power)
    if start.offset is not None:
        return _best_line_per_group(weights, importances, start, scheme.mode.bits, ratios, iterations)
    scale, zero = start.scale.unsqueeze(2).half().float(), start.zeros().unsqueeze(2)
    weighted = importances * weights
    energy = (weighted * weights).sum(2, keepdim=True)
    low, high = weights.amin(2, keepdim=True), weights.amax(2, keepdim=True)
    tried = ratios if scheme.mode.has_zero_point else ratios[::2]  # with only a scale to find, half of them will do
    best_scale, best_zero, least_error = scale, zero, torch.full_like(scale, torch.inf)
    for ratio in tried:
        if scheme.mode.has_zero_point:
            top = 2**scheme.mode.bits - 1
            trial_scale = ((high - low) * (ratio / top)).clamp_(min=EPSILON)
            trial_zero = (top / 2 - (high + low) / (2 * trial_scale)).round_().clamp_(0, top)
        else:
            trial_scale, trial_zero = start.scale.unsqueeze(2) * ratio, zero
        error = torch.full_like(scale, torch.inf)
        for _ in range(iterations):
            values = grid.values(
                grid.encode(weights / trial_scale + trial_zero, start.tensor_params), start.tensor_params
            ).sub_(trial_zero)
            product = (weighted * values).sum(2, keepdim=True)
            fitted = product / (values.square_().mul_(importances)).sum(2, keepdim=True)
            is_sound = fitted.half().abs() >= EPSILON  # which NaN is not
            trial_scale = torch.where(is_sound, fitted, trial_scale)
            error = torch.where(is_sound, energy - fitted * product, torch.inf)
        is_better = error < least_error
        best_scale = torch.where(is_better, trial_scale, best_scale)
        best_zero = torch.where(is_better, trial_zero, best_zero)
        least_error = torch.where(is_better, error, least_error)
    best_scale = best_scale.half().float()
    codes = grid.encode(weights / best_scale + best_zero, start.tensor_params).float()
    nearest = start.codes.reshape(weights.shape).float()
    is_better = _error(weights, importances, grid, codes, best_scale, best_zero, start.tensor_params) < _error(
        weights, importances, grid, nearest, scale, zero, start.tensor_params
    )
    codes = torch.where(is_better, codes, nearest)
    best_scale = torch.where(is_better, best_scale, start.scale.unsqueeze(2))
    return codes, best_scale.squeeze(2), torch.where(is_better, best_zero, zero).squeeze(2)


def _best_line_per_group(
    weights: Tensor,
    importances: Tensor,
    start: QuantizedWeight,
    bits: int,
    ratios: tuple[float, ...],
    iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of a grid with offsets."""
    assert start.offset is not None  # or nobody asks
    codes, scale, offset = best_line(weights, importances, bits, ratios, iterations)
    nearest = start.codes.reshape(weights.shape).float()
    first_scale, first_offset = start.scale.unsqueeze(2), start.offset.unsqueeze(2)

    def error(codes: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        return (importances * (codes * scale + (offset - weights)).square_()).sum(2, keepdim=True)

    is_better = error(codes, scale, offset) < error(nearest, first_scale, first_offset)
    return (
        torch.where(is_better, codes, nearest),
        torch.where(is_better, scale, first_scale).squeeze(2),
        torch.where(is_better, offset, first_offset).squeeze(2),
    )


def _error(
    weights: Tensor,
    importances: Tensor,
    grid: NumberFormat,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor,
    tensor_params: Tensor | None,
) -> Tensor:
    values = grid.values(codes.to(torch.uint8), tensor_params) - zero
    return (importances * (values.mul_(scale) - weights).square_()).sum(2, keepdim=True)
