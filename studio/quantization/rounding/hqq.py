"""Scale and zero point without any data: the half-quadratic search for a sparse error.

Source: Half-Quadratic Quantization (Badri and Shaji 2023). The weights' outliers are let err (an l_p norm of the error
with p < 1, split by a shrinkage step), the rest is fitted. Theirs keeps the scale and moves a float zero point; here
the scale is fitted as well, in turn with zero point or offset. Knows nothing of what a weight is given.
"""

from dataclasses import replace

import torch
from torch import Tensor

from studio.quantization.rounding.affine import halves
from studio.quantization.rounding.nearest import grouped, round_to_nearest
from studio.quantization.rounding.quantized_weight import EPSILON, QuantizedWeight
from studio.quantization.scheme import Scheme

STEPS = 20
NORM = 0.7
"""p, of the paper."""
STIFFNESS, GROWTH = 10.0, 1.01
"""beta and kappa, of the paper; in units of the largest weight of a group."""


def half_quadratic(weight: Tensor, scheme: Scheme, tensor_params: Tensor | None = None) -> QuantizedWeight:
    """Return ``weight`` [N, K] on the grids found; the scale is what a file will hold, in fp32.

    Formats whose scales are not free (powers of two, E4M3) are rounded to nearest.
    """
    start = round_to_nearest(weight, scheme, tensor_params)
    if scheme.mode.stored_as.scale_dtype != "F16":
        return start
    grid = scheme.mode.grid
    groups = grouped(weight, scheme)
    unit = groups.abs().amax(2, keepdim=True).clamp_(min=EPSILON)
    scale = start.scale.unsqueeze(2)
    zero = start.zeros().unsqueeze(2)
    best_scale, best_zero = scale, zero
    least = torch.full_like(scale, torch.inf)
    stiffness = STIFFNESS
    for _ in range(STEPS):
        codes = grid.encode(groups / scale + zero, start.tensor_params).to(torch.uint8)
        values = grid.values(codes, start.tensor_params)
        error = (groups - (values - zero) * scale).div_(unit)
        norm = error.abs().clamp_(min=1e-8).pow_(NORM).sum(2, keepdim=True)
        better = norm < least
        least = torch.where(better, norm, least)
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
        target = groups - _shrunk(error, stiffness) * unit
        if start.zero_point is not None:
            top = 2**scheme.mode.bits - 1
            zero = (values - target / scale).mean(2, keepdim=True).round_().clamp_(0, top)
        elif start.offset is not None:
            zero = (values - target / scale).mean(2, keepdim=True)
        values = values - zero
        fitted = (values * target).sum(2, keepdim=True) / values.square().sum(2, keepdim=True)
        scale = torch.where(fitted.half().abs() >= EPSILON, fitted, scale).half().float()
        if start.offset is not None:
            zero = -halves(-zero * scale) / scale
        stiffness *= GROWTH
    codes = grid.encode(groups / best_scale + best_zero, start.tensor_params).to(torch.uint8).reshape(weight.shape)
    zeros = None if start.zero_point is None else best_zero.squeeze(2).to(torch.uint8)
    offset = None if start.offset is None else halves(-best_zero * best_scale).squeeze(2)
    return replace(start, codes=codes, scale=best_scale.squeeze(2), zero_point=zeros, offset=offset)


def _shrunk(error: Tensor, stiffness: float) -> Tensor:
    """Return the error's large part: the generalised soft threshold of the l_p norm."""
    size = error.abs()
    threshold = size.clamp(min=1e-8).pow_(NORM - 1).div_(stiffness)
    return error.sign() * (size - threshold).clamp_(min=0)
