"""Where weights are rounded and measured and models answer: a CUDA device where there is one, else the processor.

Knows no model.
"""

from functools import cache

import torch
from torch import Tensor

from studio.base.settings import settings


@cache
def device() -> torch.device:
    """Return the device that work on weights is done on; ``STUDIO_DEVICE`` names another."""
    wished = settings().device
    if wished == "auto":
        wished = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wished)


def moved(weight: Tensor) -> Tensor:
    """Return ``weight`` on that device."""
    return weight.to(device(), non_blocking=True)


def chunk_weights(usual: int) -> int:
    """Return how many weights are worked on at once: more where a piece costs launches, fewer where it fits a cache."""
    return usual if device().type == "cpu" else 16 * usual
