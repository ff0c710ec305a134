"""For each layer: how much it minds being rounded. Computed once per model, kept on disk, then looked up.

The score is NNCF's WEIGHT_QUANTIZATION_ERROR (``mixed_precision.py``, 3.4), the data-free default of its ratio rule:
one over the largest channel's mean squared error at int8_asym. It says which layers keep 8 bits; it is no error to
look at.
"""

import json
import logging
import os
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from studio.architecture import Layer, ratio_defining
from studio.checkpoint import Checkpoint
from studio.errors import CheckpointError
from studio.rounding import dequantize, round_to_nearest
from studio.scheme import Mode, Scheme
from studio.settings import settings

LOG = logging.getLogger(__name__)
CHUNK_WEIGHTS = 1 << 22
"""Weights worked on at once: 16 MB of fp32."""


@dataclass(frozen=True)
class Surveyed:
    """One layer is done."""

    layer: str
    done: int
    total: int
    """Weights, not layers: a large layer takes longer."""


def chunks(layer: Layer) -> list[tuple[int, int]]:
    """Return row ranges of a weight that are small enough to work on at once, each but the last of even length."""
    rows, width = layer.matrix
    step = max(2, CHUNK_WEIGHTS // width & ~1)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def survey(checkpoint: Checkpoint) -> Generator[Surveyed, None, dict[str, float]]:
    """Yield each layer as it is done and return the sensitivity of every ratio-defining one, high stays at backup."""
    layers = ratio_defining(checkpoint.layers)
    kept = recall(checkpoint)
    if kept is not None:
        return kept
    total = sum(layer.numel for layer in layers)
    done = 0
    scores: dict[str, float] = {}
    for layer in layers:
        worst = 0.0
        for start, stop in chunks(layer):
            weight = checkpoint.read(layer, start, stop).float()
            worst = max(worst, channel_error(weight))
            done += weight.numel()
            yield Surveyed(layer.name, done, total)
        if worst != worst:
            raise CheckpointError("not_finite", tensor=layer.source)
        scores[layer.name] = 1 / (worst + torch.finfo(torch.float32).eps)
    _keep(checkpoint, scores)
    return scores


def channel_error(weight: torch.Tensor) -> float:
    """Return the largest mean squared int8_asym error of a channel of ``weight`` [N, K], NaN if one is not finite."""
    rounded = dequantize(round_to_nearest(weight, Scheme(Mode.INT8_ASYM)), Mode.INT8_ASYM)
    return float((rounded - weight).square_().mean(1).max())


def recall(checkpoint: Checkpoint) -> dict[str, float] | None:
    """Return the sensitivities kept from an earlier visit, None when there are none or they are not this model's."""
    try:
        kept = json.loads(_file(checkpoint).read_text())
    except (OSError, ValueError):
        return None
    names = {layer.name for layer in ratio_defining(checkpoint.layers)}
    if not isinstance(kept, dict) or kept.keys() != names:
        return None
    return kept if all(isinstance(score, float) for score in kept.values()) else None


def _keep(checkpoint: Checkpoint, scores: dict[str, float]) -> None:
    """Write the scores for the next visit; a disk that has no room for them costs that visit a second, no more."""
    file = _file(checkpoint)
    partial = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(scores))
        partial.replace(file)
    except OSError as error:
        LOG.warning("the survey of %s is not kept: %s", checkpoint.name, error)
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _file(checkpoint: Checkpoint) -> Path:
    return settings().cache_dir / "survey" / f"{checkpoint.revision}.json"
