"""Weights -> codes and scales, and back: pure tensor maths, on any device. Knows nothing of bytes or files."""

from studio.quantization.rounding.levels import NF4_LEVELS
from studio.quantization.rounding.methods import METHODS
from studio.quantization.rounding.nearest import GRIDS, dequantize, round_to_nearest, shared_of
from studio.quantization.rounding.rounded import Rounded
from studio.quantization.rounding.statistics import Statistics

__all__ = [
    "GRIDS",
    "METHODS",
    "NF4_LEVELS",
    "Rounded",
    "Statistics",
    "dequantize",
    "round_to_nearest",
    "shared_of",
]
