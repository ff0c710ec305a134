"""The calibrated methods that are made of others: weight [N, K], scheme and what is known of its inputs in, a
QuantizedWeight out. ``quantization/methods.py`` says what each is called. Knows no model, and not where the statistics
come from.
"""

from collections.abc import Callable

from torch import Tensor

from studio.quantization.rounding.descent import descend
from studio.quantization.rounding.gptq import gptq
from studio.quantization.rounding.least_squares import least_squares
from studio.quantization.rounding.nearest import round_to_nearest
from studio.quantization.rounding.quantized_weight import QuantizedWeight
from studio.quantization.rounding.statistics import Statistics
from studio.quantization.scheme import Scheme

DataFree = Callable[[Tensor, Scheme, Tensor | None], QuantizedWeight]
"""Weight, scheme, what the tensor shares (as ``round_to_nearest`` takes it) -> QuantizedWeight."""
Calibrated = Callable[[Tensor, Scheme, Statistics], QuantizedWeight]


def scale_estimation(weight: Tensor, scheme: Scheme, statistics: Statistics) -> QuantizedWeight:
    """Return the weight on scales fitted in five turns, without clipping."""
    return least_squares(weight, scheme, statistics.power, ratios=(1.0,), iterations=5)


def fitted(weight: Tensor, scheme: Scheme, statistics: Statistics) -> QuantizedWeight:
    """Return the weight on the grids that least squares finds for inputs of this power."""
    return least_squares(weight, scheme, statistics.power)


def nearest_gptq(weight: Tensor, scheme: Scheme, statistics: Statistics) -> QuantizedWeight:
    """Return GPTQ's codes on the grids of rounding to nearest."""
    return gptq(weight, scheme, round_to_nearest(weight, scheme), statistics)


def fitted_gptq(weight: Tensor, scheme: Scheme, statistics: Statistics) -> QuantizedWeight:
    """Return GPTQ's codes on the grids of :func:`fitted`; a descent takes blocks and offsets from there."""
    return gptq_on(weight, scheme, fitted(weight, scheme, statistics), statistics)


def gptq_on(weight: Tensor, scheme: Scheme, start: QuantizedWeight, statistics: Statistics) -> QuantizedWeight:
    """Return GPTQ's codes on the grids of a start; a descent takes blocks and offsets from there."""
    found = gptq(weight, scheme, start, statistics)
    return descend(weight, scheme, found, statistics) if found.blocks is not None or found.offset is not None else found
