"""Weights -> codes and scales, and back: pure tensor maths, on any device. Knows nothing of bytes or files."""

from studio.quantization.rounding.levels import NF4_LEVELS
from studio.quantization.rounding.nearest import dequantize, round_to_nearest, tensor_params_of
from studio.quantization.rounding.quantized_weight import QuantizedWeight
from studio.quantization.rounding.statistics import Statistics

__all__ = ["NF4_LEVELS", "QuantizedWeight", "Statistics", "dequantize", "round_to_nearest", "tensor_params_of"]
