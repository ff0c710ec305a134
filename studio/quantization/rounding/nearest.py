"""Round to nearest, in every format. Everything is fp32.

Codes are found with the fp32 scale, the scale is stored in the format's own dtype afterwards, as NNCF does. Knows
nothing of what a weight is given.
"""

from collections.abc import Generator, Iterable

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import Blocks
from studio.quantization.ggml.fit import fit
from studio.quantization.rounding.quantized_weight import QuantizedWeight
from studio.quantization.scheme import Mode, Scheme


def tensor_params_of(pieces: Iterable[Tensor], schemes: Iterable[Scheme]) -> Generator[int, None, dict[Scheme, Tensor]]:
    """Look at a whole weight, of which ``pieces`` gives the rows [n, K] in turn; yield how many weights were seen.

    Returns what the weight shares in those of ``schemes`` in which it does, to be given to :func:`round_to_nearest` for
    each piece of a weight that is not rounded at once. Without such a scheme no piece is asked for.
    """
    fits = {scheme: make_fit() for scheme in schemes if (make_fit := scheme.mode.grid.fit) is not None}
    seen = 0
    for piece in pieces if fits else ():
        for scheme, fit_ in fits.items():
            fit_.add(grouped(piece, scheme))
        seen += piece.numel()
        yield seen
    return {scheme: fit_.result() for scheme, fit_ in fits.items()}


def round_to_nearest(weight: Tensor, scheme: Scheme, tensor_params: Tensor | None = None) -> QuantizedWeight:
    """Return ``weight`` [N, K], of any float dtype, on the grid of ``scheme``.

    Blocks of two levels have no one nearest grid: theirs spans each sub-block's range, as that of others does.
    """
    if scheme.mode.is_in_blocks:
        return in_blocks(fit(weight, scheme.mode.block_format, ratios=(1.0,), rounds=0))
    grid = scheme.mode.grid
    groups = grouped(weight, scheme)
    if tensor_params is None and grid.fit is not None:
        shared = grid.fit()
        shared.add(groups)
        tensor_params = shared.result()
    codes, scale, zero = grid.round(groups, tensor_params)
    codes = codes.to(torch.uint8).reshape(weight.shape)
    if grid.has_offset:
        return QuantizedWeight(codes, scale, None, tensor_params, offset=zero)
    return QuantizedWeight(codes, scale, None if zero is None else zero.to(torch.uint8), tensor_params)


def dequantize(rounded: QuantizedWeight, mode: Mode) -> Tensor:
    """Return the weight that the stored numbers stand for, fp32 [N, K]:
    ``(value of code - zero_point) * scale + offset``."""
    if rounded.blocks is not None:
        return mode.block_format.dequantize(rounded.blocks.with_codes(rounded.codes))
    codes = rounded.codes.reshape(rounded.codes.shape[0], rounded.scale.shape[1], -1)
    values, scale = mode.grid.values(codes, rounded.tensor_params), mode.grid.scales(rounded)
    if rounded.zero_point is not None:
        values = values - rounded.zero_point.to(torch.float32).unsqueeze(2)
    dense = values * scale.unsqueeze(2)
    if rounded.offset is not None:
        dense += rounded.offset.to(torch.float32).unsqueeze(2)
    return dense.reshape(rounded.codes.shape)


def in_blocks(blocks: Blocks) -> QuantizedWeight:
    """Return a weight whose codes and scales lie in blocks."""
    return QuantizedWeight(blocks.codes, blocks.scale(), None, None, blocks)


def grouped(weight: Tensor, scheme: Scheme) -> Tensor:
    """Return the groups of a weight: [N, K] -> [N, G, g], fp32."""
    rows, width = weight.shape
    return weight.to(torch.float32).reshape(rows, scheme.groups(width), -1)
