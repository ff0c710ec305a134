"""What the tensors are called that hold the scales of FP8 and MXFP4 weights. Knows names alone, and no torch."""

FP8 = frozenset({"F8_E4M3", "F8_E5M2"})
FP8_SCALES = ("_scale_inv", "_scale")
"""What follows the weight's name in its scales', the name DeepSeek gave them first."""
BLOCKS, SCALES = "_blocks", "_scales"
"""The ends of the two tensors that an MXFP4 weight is stored in."""
