"""Weights -> codes and scales, and back: pure tensor maths, on any device. Knows nothing of bytes or files."""

from studio.rounding.levels import NF4_LEVELS
from studio.rounding.nearest import GRIDS, dequantize, round_to_nearest, shared_of
from studio.rounding.rounded import Rounded

__all__ = ["GRIDS", "NF4_LEVELS", "Rounded", "dequantize", "round_to_nearest", "shared_of"]
