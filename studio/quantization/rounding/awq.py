"""AWQ's channel scales: input channels that carry much are made larger before rounding, and their inputs smaller.

Source: AWQ (Lin et al. 2023). A channel's scale is its inputs' size to a power alpha; the power that leaves the least
error of the output is searched for. The inputs' share is folded into what makes them, which this file knows nothing of.
"""

import torch
from torch import Tensor

from studio.quantization.rounding.nearest import dequantize, round_to_nearest
from studio.quantization.rounding.statistics import Statistics
from studio.quantization.scheme import Scheme

POWERS = tuple(step / 20 for step in range(20))
"""What alpha is tried of; 0 is no scaling."""
ROWS = 512
"""Of a weight: as many, evenly spread, choose the power."""


def channel_scales(weight: Tensor, scheme: Scheme, statistics: Statistics) -> Tensor:
    """Return the scales [K], around one, with which ``weight`` [N, K] in ``scheme`` moves its output least."""
    some = weight[:: max(1, len(weight) // ROWS)].float()
    hessian = statistics.hessian
    best, least = torch.ones_like(statistics.power), torch.inf
    size = statistics.power.sqrt()
    size = size.clamp(min=float(size.mean()) * 1e-4)  # a channel that is always zero is not made infinite
    for power in POWERS:
        scales = size.pow(power)
        scales = scales / (scales.max() * scales.min()).sqrt()
        rounded = round_to_nearest(some * scales, scheme).stored(scheme.mode.stored_as.scale_dtype)
        moved = dequantize(rounded, scheme.mode) / scales - some
        error = float((moved @ hessian).mul_(moved).sum())
        if error < least:
            best, least = scales, error
    return best


def scaled(statistics: Statistics, scales: Tensor) -> Statistics:
    """Return the statistics of inputs divided by ``scales`` [K]."""
    return Statistics(statistics.hessian / torch.outer(scales, scales), statistics.tokens)
