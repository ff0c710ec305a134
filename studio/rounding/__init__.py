"""Weight -> codes and scales. Pure tensor maths on any device; knows nothing of bytes, files or models."""

from studio.rounding.nearest import NF4_LEVELS, Rounded, dequantize, round_to_nearest

__all__ = ["NF4_LEVELS", "Rounded", "dequantize", "round_to_nearest"]
