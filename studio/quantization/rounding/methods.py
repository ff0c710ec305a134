"""Every way to round a weight, behind one interface.

Weight [N, K], scheme and what is known of its inputs -> QuantizedWeight.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from studio.quantization.methods import Method
from studio.quantization.rounding.gptq import gptq
from studio.quantization.rounding.hqq import half_quadratic
from studio.quantization.rounding.least_squares import least_squares
from studio.quantization.rounding.nearest import round_to_nearest
from studio.quantization.rounding.quantized_weight import QuantizedWeight
from studio.quantization.rounding.statistics import Statistics
from studio.quantization.scheme import Scheme

DataFree = Callable[[Tensor, Scheme, Tensor | None], QuantizedWeight]
"""Weight, scheme, what the tensor shares (as ``round_to_nearest`` takes it) -> QuantizedWeight."""
Calibrated = Callable[[Tensor, Scheme, Statistics], QuantizedWeight]


@dataclass(frozen=True)
class Rounding:
    """A method: ``data_free`` of data, and ``calibrated`` where it knows what to do with statistics."""

    data_free: DataFree
    nanoseconds: float
    """About what a weight costs on two cores of an AMD EPYC, with the calibration it takes."""
    calibrated: Calibrated | None = None
    weighs_tokens: bool = False
    """Whether its statistics count a token by how much the predictions hang on it, not all alike."""
    scales_channels: bool = False
    """Whether input channels are scaled before, where their inputs can make up for it (``rounding/awq.py``)."""
    is_tuned: bool = False
    """Whether a block's weights are then tuned together (``rounding/tuned.py``)."""


def _scale_estimation(weight: Tensor, scheme: Scheme, statistics: Statistics) -> QuantizedWeight:
    return least_squares(weight, scheme, statistics.power, ratios=(1.0,), fits=5)


def _least_squares(weight: Tensor, scheme: Scheme, statistics: Statistics) -> QuantizedWeight:
    return least_squares(weight, scheme, statistics.power)


def _nearest_gptq(weight: Tensor, scheme: Scheme, statistics: Statistics) -> QuantizedWeight:
    return gptq(weight, scheme, round_to_nearest(weight, scheme), statistics)


def _gptq(weight: Tensor, scheme: Scheme, statistics: Statistics) -> QuantizedWeight:
    return gptq(weight, scheme, least_squares(weight, scheme, statistics.power), statistics)


METHODS: dict[Method, Rounding] = {
    Method.NEAREST: Rounding(round_to_nearest, 5),
    Method.HALF_QUADRATIC: Rounding(half_quadratic, 200),
    Method.SCALE_ESTIMATION: Rounding(round_to_nearest, 165, _scale_estimation),
    Method.LEAST_SQUARES: Rounding(round_to_nearest, 190, _least_squares),
    Method.NEAREST_GPTQ: Rounding(round_to_nearest, 250, _nearest_gptq),
    Method.GPTQ: Rounding(round_to_nearest, 290, _gptq),
    Method.AWQ: Rounding(round_to_nearest, 320, _least_squares, scales_channels=True),
    Method.FISHER_GPTQ: Rounding(round_to_nearest, 415, _gptq, weighs_tokens=True),
    Method.TUNED: Rounding(round_to_nearest, 2750, _gptq, weighs_tokens=True, is_tuned=True),
}
"""A weight that was given nothing is rounded by the data-free part."""
