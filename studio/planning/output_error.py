"""How far each linear layer's output moves when its weight is rounded: ‖XWᵀ - XŴᵀ‖ / ‖XWᵀ‖, X from a short text.

Knows nothing of plans, nor of how an error in one layer passes on to the next.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from studio.base import json_cache
from studio.base.steps import relayed
from studio.calibration import activations
from studio.calibration.activations import MAX_ROWS, MAX_TOKENS, SEED, TEXT, Inputs
from studio.checkpoint.checkpoint import Checkpoint
from studio.planning import layer_losses
from studio.planning.layer_figure import MeasuredFigure
from studio.planning.layer_losses import Figures, Loss, Steps, calibrating
from studio.quantization.scheme import Scheme

VERSION = 1
"""Raised when the figures change their meaning: those kept on disk are then not read any more."""


def measure(checkpoint: Checkpoint, schemes: Sequence[Scheme]) -> Steps:
    """Return the output error of every linear layer over the built-in text, at once if it was measured before.

    Raises CheckpointError when the files are damaged, or have no tokenizer.
    """
    before = recall(checkpoint, schemes)
    if before is not None:
        return before
    inputs = yield from relayed(activations.inputs(checkpoint), calibrating)
    errors = yield from output_errors(checkpoint, inputs, schemes)
    json_cache.keep(_file(checkpoint, schemes), errors)
    return errors


def output_errors(checkpoint: Checkpoint, inputs: Mapping[str, Inputs], schemes: Iterable[Scheme]) -> Steps:
    """Return the output error of every linear layer for each of ``schemes`` whose groups divide its rows.

    Raises CheckpointError for weights that are not finite.
    """
    losses = {name: output_loss(given.rows) for name, given in inputs.items()}
    return (yield from layer_losses.figures(checkpoint, losses, schemes, "output"))


def output_loss(given: Tensor) -> Loss:
    """Return what a layer's output over ``given``, X [R, K] of any float dtype, loses."""
    return Loss(lambda rows: float((given.float() @ rows.T).square_().sum()), _ratio)


def recall(checkpoint: Checkpoint, schemes: Sequence[Scheme]) -> Figures | None:
    """Return the errors kept from an earlier visit, None when there are none or they are not of these layers."""
    return layer_losses.recall(_file(checkpoint, schemes), checkpoint, schemes)


def _ratio(moved: float, output: float) -> float:
    """Return ‖moved‖ / ‖output‖; an output of nothing but zeros that nothing moves has no error."""
    return math.sqrt(moved / output) if output else 0.0


def _file(checkpoint: Checkpoint, schemes: Sequence[Scheme]) -> Path:
    how = (VERSION, TEXT.read_bytes(), MAX_TOKENS, MAX_ROWS, SEED)
    return layer_losses.file_of(checkpoint, "output", schemes, *how)


FIGURE = MeasuredFigure("output", by=measure, is_always_on_card=True)
