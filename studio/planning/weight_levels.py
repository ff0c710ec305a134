"""Where a weight's numbers lie between the levels that a scheme has for them. Knows no pictures and no methods.

Every group has levels of its own. So that a whole weight can be counted in one histogram, each number is placed between
the two levels of its group as it lies there, and the levels stand where they are on average, in parts of a group's
largest magnitude: what snaps where stays exact, also where the levels are uneven.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Layer
from studio.quantization.rounding.nearest import dequantize, grouped, round_to_nearest
from studio.quantization.rounding.quantized_weight import Codes, QuantizedWeight
from studio.quantization.scheme import Scheme

SAMPLE = 1 << 18
"""Weights looked at: whole rows from the middle of the matrix."""
BINS = 128
MOST_BITS = 5
"""Of codes whose levels are told apart on a screen."""


@dataclass(frozen=True)
class OneGroup:
    """The numbers of one group, before and after; the group whose error is the median of the rows looked at."""

    weights: tuple[float, ...]
    snapped: tuple[float, ...]
    levels: tuple[float, ...]


@dataclass(frozen=True)
class WeightLevels:
    """A histogram of some rows of a weight, with the levels of its scheme."""

    edges: tuple[float, ...]
    """Of the bins, one more than ``counts``; in parts of a group's largest magnitude, of a weight kept its own unit."""
    counts: tuple[int, ...]
    levels: tuple[float, ...]
    """Rising, where they stand on average; none where the weight is kept, or has too many."""
    taken: tuple[float, ...]
    """The share of the weights that snap to each level."""
    group: OneGroup | None
    sampled: int
    whole: int


def weight_levels(checkpoint: Checkpoint, layer: Layer, scheme: Scheme | None) -> WeightLevels:
    """Return the histogram of a layer's weights on this machine, rounded to nearest in ``scheme``; None keeps them.

    Raises CheckpointError for a damaged file.
    """
    weight = _middle(checkpoint, layer)
    if scheme is None:
        return _counted(weight.flatten(), (), (), None, weight, layer)
    rounded = round_to_nearest(weight, scheme)
    groups = grouped(weight, scheme)
    top = groups.abs().amax(2, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
    if scheme.mode.bits > MOST_BITS:
        return _counted((groups / top).flatten(), (), (), None, weight, layer)
    own = _levels(rounded, scheme, groups.shape[1])
    unit = top * _direction(own, scheme)
    levels, values = (own / unit).sort(2).values.flatten(0, 1), dequantize(rounded, scheme.mode).reshape(groups.shape)
    mean = levels.double().mean(0).float()
    places = _placed((groups / unit).flatten(0, 1), levels, mean)
    nearest = ((values / unit).flatten(0, 1).unsqueeze(2) - levels.unsqueeze(1)).abs_().argmin(2)
    taken = torch.bincount(nearest.flatten(), minlength=len(mean)).double() / nearest.numel()
    shown = _together(mean, taken)
    return _counted(places.flatten(), *shown, _median_group(groups, values, own), weight, layer)


def _direction(levels: Tensor, scheme: Scheme) -> Tensor:
    """Return -1 for the groups that are counted mirrored, else 1, [N, G, 1].

    Signed integers reach one step further on the side of the group's largest weight, whichever that is.
    """
    mode = scheme.mode
    is_signed = not mode.block_format.has_offset if mode.is_in_blocks else mode.grid.codes is Codes.SYMMETRIC
    if not is_signed:
        return torch.ones_like(levels[:, :, :1])
    return torch.where(levels[:, :, :1] + levels[:, :, -1:] > 0, -1.0, 1.0)


def _middle(checkpoint: Checkpoint, layer: Layer) -> Tensor:
    """Return whole rows [n, K] from the middle of a weight, fp32."""
    rows, width = layer.matrix
    count = min(rows, max(2, SAMPLE // width & ~1))
    start = (rows - count) // 2 & ~1
    return checkpoint.read(layer, start, start + count).to(torch.float32)


def _levels(rounded: QuantizedWeight, scheme: Scheme, groups: int) -> Tensor:
    """Return the levels of every group, rising, [N, G, 2^bits]."""
    step = rounded.codes.shape[1] // groups
    every = [
        dequantize(replace(rounded, codes=torch.full_like(rounded.codes, code)), scheme.mode)[:, ::step]
        for code in range(2**scheme.mode.bits)
    ]
    return torch.stack(every, 2).sort(2).values


def _placed(normal: Tensor, levels: Tensor, mean: Tensor) -> Tensor:
    """Return where numbers [n, g] lie among the ``mean`` levels [L], as they do among their own [n, L]."""
    below = (torch.searchsorted(levels, normal.contiguous(), right=True) - 1).clamp_(0, len(mean) - 2)
    low, high = levels.gather(1, below), levels.gather(1, below + 1)
    part = ((normal - low) / (high - low).clamp(min=1e-12)).nan_to_num_(0.0)
    spread = mean[below + 1] - mean[below]
    return mean[below] + part.clamp_(-0.5, 1.5) * spread  # an end of the range may lie a little beyond its last level


def _together(mean: Tensor, taken: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return levels and shares with those that are one number as one: floats have two zeros."""
    shares: dict[float, float] = {}
    for level, share in zip(mean.tolist(), taken.tolist(), strict=True):
        same = next((known for known in shares if abs(known - level) < 1e-6), level)
        shares[same] = shares.get(same, 0.0) + share
    return tuple(shares), tuple(shares.values())


def _median_group(before: Tensor, after: Tensor, levels: Tensor) -> OneGroup:
    """Return one of the groups [N, G, g], as they were and rounded, with its levels [N, G, L]."""
    errors = ((before - after).square().sum(2) / before.square().sum(2).clamp(min=1e-30)).flatten()
    place = int(errors.argsort()[len(errors) // 2])
    chosen = [tensor.flatten(0, 1)[place].tolist() for tensor in (before, after, levels)]
    return OneGroup(tuple(chosen[0]), tuple(chosen[1]), tuple(sorted(set(chosen[2]))))


def _counted(
    places: Tensor,
    levels: tuple[float, ...],
    taken: tuple[float, ...],
    group: OneGroup | None,
    weight: Tensor,
    layer: Layer,
) -> WeightLevels:
    reach = float(places.abs().max()) * 1.02 or 1.0
    counts, edges = torch.histogram(places.cpu(), BINS, range=(-reach, reach))
    return WeightLevels(
        tuple(edges.tolist()),
        tuple(int(count) for count in counts.tolist()),
        levels,
        taken,
        group,
        weight.numel(),
        layer.numel,
    )
