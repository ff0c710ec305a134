"""Round to nearest, in every format. Everything is fp32.

Codes are found with the fp32 scale, the scale is stored in the format's own dtype afterwards, as NNCF does.
"""

from collections.abc import Generator, Iterable

import torch
from torch import Tensor

from studio.quantization.rounding.codebook import LEARNED
from studio.quantization.rounding.float4 import FP4, MXFP4, NVFP4
from studio.quantization.rounding.float8 import FP8, MXFP8
from studio.quantization.rounding.integer import asymmetric, symmetric
from studio.quantization.rounding.levels import CB4_LEVELS, NF4_LEVELS, fixed
from studio.quantization.rounding.quantized_weight import NumberFormat, QuantizedWeight
from studio.quantization.scheme import Mode, Scheme

NUMBER_FORMATS: dict[Mode, NumberFormat] = {
    Mode.INT8_SYM: symmetric(8),
    Mode.INT8_ASYM: asymmetric(8),
    Mode.INT4_SYM: symmetric(4),
    Mode.INT4_ASYM: asymmetric(4),
    Mode.INT3_SYM: symmetric(3),
    Mode.INT2_SYM: symmetric(2),
    Mode.NF4: fixed(NF4_LEVELS),
    Mode.FP4: FP4,
    Mode.MXFP4: MXFP4,
    Mode.NVFP4: NVFP4,
    Mode.FP8_E4M3: FP8,
    Mode.MXFP8_E4M3: MXFP8,
    Mode.CB4: fixed(CB4_LEVELS),
    Mode.CB4_LEARNED: LEARNED,
    Mode.INT5_SYM: symmetric(5),
}


def tensor_params_of(pieces: Iterable[Tensor], schemes: Iterable[Scheme]) -> Generator[int, None, dict[Scheme, Tensor]]:
    """Look at a whole weight, of which ``pieces`` gives the rows [n, K] in turn; yield how many weights were seen.

    Returns what the weight shares in those of ``schemes`` in which it does, to be given to :func:`round_to_nearest` for
    each piece of a weight that is not rounded at once. Without such a scheme no piece is asked for.
    """
    fits = {scheme: fit() for scheme in schemes if (fit := NUMBER_FORMATS[scheme.mode].fit) is not None}
    seen = 0
    for piece in pieces if fits else ():
        for scheme, fit_ in fits.items():
            fit_.add(grouped(piece, scheme))
        seen += piece.numel()
        yield seen
    return {scheme: fit_.found() for scheme, fit_ in fits.items()}


def round_to_nearest(weight: Tensor, scheme: Scheme, tensor_params: Tensor | None = None) -> QuantizedWeight:
    """Return ``weight`` [N, K], of any float dtype, on the grid of ``scheme``."""
    grid = NUMBER_FORMATS[scheme.mode]
    groups = grouped(weight, scheme)
    if tensor_params is None and grid.fit is not None:
        fit = grid.fit()
        fit.add(groups)
        tensor_params = fit.found()
    codes, scale, zero_point = grid.round(groups, tensor_params)
    zeros = None if zero_point is None else zero_point.to(torch.uint8)
    return QuantizedWeight(codes.to(torch.uint8).reshape(weight.shape), scale, zeros, tensor_params)


def dequantize(rounded: QuantizedWeight, mode: Mode) -> Tensor:
    """Return the weight that the stored numbers stand for, fp32 [N, K]: ``(value of code - zero_point) * scale``."""
    codes = rounded.codes.reshape(rounded.codes.shape[0], rounded.scale.shape[1], -1)
    values = NUMBER_FORMATS[mode].values(codes, rounded.tensor_params)
    scale = rounded.scale.to(torch.float32)
    if mode is Mode.NVFP4 and rounded.tensor_params is not None:
        scale = scale * rounded.tensor_params.to(scale.device)
    if rounded.zero_point is not None:
        values = values - rounded.zero_point.to(torch.float32).unsqueeze(2)
    return (values * scale.unsqueeze(2)).reshape(rounded.codes.shape)


def grouped(weight: Tensor, scheme: Scheme) -> Tensor:
    """Return the groups of a weight: [N, K] -> [N, G, g], fp32."""
    rows, width = weight.shape
    return weight.to(torch.float32).reshape(rows, scheme.groups(width), -1)
