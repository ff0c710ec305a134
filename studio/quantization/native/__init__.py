"""Compiled twins of slow torch code: plain C for processors, Triton for CUDA, built on first use where the tools for it
exist, never needed.

Knows nothing of models. The codes of a twin are those of the torch code, bit for bit; tests compare them.
"""

from collections.abc import Sequence
from importlib.util import find_spec

from torch import Tensor

from studio.base.settings import settings
from studio.quantization.native import round_to_nearest
from studio.quantization.native.round_to_nearest import pack_nearest
from studio.quantization.scheme import Scheme

__all__ = ["channel_error", "pack_nearest", "squared_errors"]


def squared_errors(weight: Tensor, schemes: Sequence[Scheme]) -> tuple[dict[Scheme, float], float, float] | None:
    """Return ‖W - Ŵ‖² of those of ``schemes`` that have a twin on the weight's device, ‖W‖², and the largest channel's
    mean squared int8_asym error; None where torch has to do all of it. ``weight`` [N, K]; every group divides K."""
    if not _on_cuda(weight):
        return round_to_nearest.squared_errors(weight, schemes)
    from studio.quantization.native import cuda_survey  # imports Triton

    return cuda_survey.squared_errors(weight, schemes)


def channel_error(weight: Tensor) -> float | None:
    """Return the largest channel's mean squared int8_asym error of ``weight`` [N, K], NaN where one is."""
    if not _on_cuda(weight):
        return round_to_nearest.channel_error(weight)
    from studio.quantization.native import cuda_survey

    return cuda_survey.channel_error(weight)


def _on_cuda(weight: Tensor) -> bool:
    return weight.is_cuda and settings().native and find_spec("triton") is not None
