"""GPTQ: columns are rounded one by one, and those still to come make up for the error of each.

Source: GPTQ (Frantar et al. 2022), with static groups and activation order: scales and zero points stay as they are
given, from whatever method; only the codes change. Knows no format but by its grid.
"""

from dataclasses import replace

import torch
from torch import Tensor

from studio.quantization.rounding.quantized_weight import QuantizedWeight
from studio.quantization.rounding.statistics import Statistics
from studio.quantization.scheme import Scheme

FLAT = 1e-12
"""In place of a scale of zero in a sub-block that has an offset: what it divides stays finite."""
BLOCK = 128
"""Columns whose errors are passed on together."""


def gptq(weight: Tensor, scheme: Scheme, start: QuantizedWeight, statistics: Statistics) -> QuantizedWeight:
    """Return ``start``, a rounding of ``weight`` [N, K], with the codes that GPTQ finds for its stored grid."""
    order, upper = statistics.inverse_cholesky
    columns = torch.arange(weight.shape[1], dtype=torch.int64, device=weight.device)
    group = columns // (weight.shape[1] // start.scale.shape[1])
    scales, zeros = _columns(start, scheme)
    grid = scheme.mode.grid
    left = weight.float().T.contiguous()[order]
    scales, zeros = scales[group[order]], zeros[group[order]]
    codes = torch.empty(left.shape, dtype=torch.uint8, device=weight.device)
    for first in range(0, len(left), BLOCK):
        last = min(first + BLOCK, len(left))
        rows, factors = left[first:last], upper[first:last, first:last]
        errors = torch.empty_like(rows)
        for j, row in enumerate(rows):
            scale, zero = scales[first + j], zeros[first + j]
            code = grid.encode(row / scale + zero, start.tensor_params).to(torch.uint8)
            codes[first + j] = code
            value = (grid.values(code, start.tensor_params) - zero).mul_(scale)
            errors[j] = (row - value).div_(factors[j, j])
            rows[j + 1 :].addr_(factors[j, j + 1 :], errors[j], alpha=-1)
        left[last:].addmm_(upper[first:last, last:].T, errors, alpha=-1)
    in_column_order = torch.empty_like(codes)
    in_column_order[order] = codes
    return replace(start, codes=in_column_order.T.contiguous())


def _columns(start: QuantizedWeight, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Return what a file will hold of scale and zero point, fp32 [G, N]; a scale of zero becomes one that keeps it."""
    if start.blocks is not None:
        scales, offset = start.blocks.scale(), start.blocks.offset()
        scales = torch.where(scales.abs() < FLAT, FLAT, scales)
        nothing = torch.zeros_like(scales)
        return scales.T.contiguous(), (nothing if offset is None else -offset / scales).T.contiguous()
    stored = scheme.mode.grid.scales(start.stored(scheme.mode.stored_as.scale_dtype))
    stored = torch.where(stored == 0, torch.finfo(torch.float32).tiny, stored)
    zeros = replace(start.stored(scheme.mode.stored_as.scale_dtype), scale=stored).zeros()
    return stored.T.contiguous(), zeros.T.contiguous()
