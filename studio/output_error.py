"""How far each linear layer's output moves when its weight is rounded: ‖XWᵀ - XŴᵀ‖ / ‖XWᵀ‖, X from a short text.

Knows nothing of plans, nor of how an error in one layer passes on to the next.
"""

import hashlib
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from studio import calibrate, kept
from studio.architecture import Layer, ratio_defining
from studio.blocks import Step
from studio.calibrate import MAX_ROWS, MAX_TOKENS, SEED, TEXT, Inputs
from studio.checkpoint import Checkpoint
from studio.errors import CheckpointError
from studio.quantize import quantize
from studio.rounding import shared_of
from studio.scheme import Scheme
from studio.settings import settings
from studio.steps import relayed
from studio.survey import chunks

VERSION = 1
"""Raised when the figures change their meaning: those kept on disk are then not read any more."""

Candidate = Callable[[Tensor], Tensor]
"""Rows of a weight, fp32 [n, K] -> the same rows compressed and dequantized, fp32 [n, K]."""
Errors = dict[str, dict[str, float]]
"""Layer -> scheme -> output error; a layer that was given no input has none."""


@dataclass(frozen=True)
class Measured:
    """Some rows of a layer are done; with its last ones come its errors."""

    layer: str
    errors: Mapping[str, float] | None
    """Scheme -> output error, None while the layer is in progress."""
    done: int
    total: int
    """Weights, not layers: a large layer takes longer."""


def measure(checkpoint: Checkpoint, schemes: Sequence[Scheme]) -> Generator[Step | Measured, None, Errors]:
    """Return the output error of every linear layer over the built-in text, at once if it was measured before.

    Raises CheckpointError when the files are damaged, or have no tokenizer.
    """
    before = recall(checkpoint, schemes)
    if before is not None:
        return before
    inputs = yield from calibrate.inputs(checkpoint)
    errors = yield from output_errors(checkpoint, inputs, schemes)
    kept.keep(_file(checkpoint, schemes), errors)
    return errors


def output_errors(
    checkpoint: Checkpoint, inputs: Mapping[str, Inputs], schemes: Iterable[Scheme]
) -> Generator[Measured, None, Errors]:
    """Return the output error of every linear layer for each of ``schemes`` whose groups divide its rows.

    Raises CheckpointError for weights that are not finite.
    """
    layers = [layer for layer in ratio_defining(checkpoint.layers) if layer.name in inputs]
    total = sum(layer.numel for layer in layers)
    done = 0
    errors: Errors = {layer.name: {} for layer in ratio_defining(checkpoint.layers)}
    for layer in layers:
        fitting = _fitting(layer, schemes)
        passes = 1 + any(scheme.mode.needs_whole for scheme in fitting)
        pieces = (checkpoint.read(layer, *rows) for rows in chunks(layer))
        shared = yield from relayed(shared_of(pieces, fitting), partial(_looked, layer, done, total, passes))
        candidates = {str(scheme): partial(_rounded, scheme, shared.get(scheme)) for scheme in fitting}
        seen = layer.numel if shared else 0
        for rows, found in layer_errors(checkpoint, layer, inputs[layer.name].rows, candidates):
            seen += rows * layer.matrix[1]
            if found is not None:
                errors[layer.name] = found
            yield Measured(layer.name, found, done + seen // passes, total)
        done += layer.numel
    return errors


def layer_errors(
    checkpoint: Checkpoint, layer: Layer, given: Tensor, candidates: Mapping[str, Candidate]
) -> Generator[tuple[int, dict[str, float] | None], None, None]:
    """Yield how many rows of the weight were worked on, with the last ones the output error of each candidate.

    ``given`` is X [R, K] of any float dtype; everything is computed in fp32. Raises CheckpointError for weights that
    are not finite.
    """
    given = given.float()
    output = 0.0
    moved = dict.fromkeys(candidates, 0.0)
    parts = chunks(layer)
    for start, stop in parts:
        weight = checkpoint.read(layer, start, stop).float()
        output += _energy(given @ weight.T)
        for name, candidate in candidates.items():
            moved[name] += _energy(given @ (weight - candidate(weight)).T)
        if not math.isfinite(output):
            raise CheckpointError("not_finite", tensor=layer.name)
        is_last = (start, stop) == parts[-1]
        yield stop - start, {name: _ratio(value, output) for name, value in moved.items()} if is_last else None


def recall(checkpoint: Checkpoint, schemes: Sequence[Scheme]) -> Errors | None:
    """Return the errors kept from an earlier visit, None when there are none or they are not of these layers."""
    found = kept.recall(_file(checkpoint, schemes))
    layers = ratio_defining(checkpoint.layers)
    if not isinstance(found, dict) or found.keys() != {layer.name for layer in layers}:
        return None
    return found if all(_is_sound(found[layer.name], _fitting(layer, schemes)) for layer in layers) else None


def _looked(layer: Layer, done: int, total: int, passes: int, seen: int) -> Measured:
    return Measured(layer.name, None, done + seen // passes, total)


def _rounded(scheme: Scheme, shared: Tensor | None, weight: Tensor) -> Tensor:
    """Return rows of a layer as the whole of it is rounded, with what the whole shares."""
    return quantize(weight, scheme, shared).packed.dequantize()


def _fitting(layer: Layer, schemes: Iterable[Scheme]) -> list[Scheme]:
    return [scheme for scheme in schemes if scheme.fits(layer.matrix[1])]


def _energy(output: Tensor) -> float:
    return float(output.square_().sum())


def _ratio(moved: float, output: float) -> float:
    """Return ‖moved‖ / ‖output‖; an output of nothing but zeros that nothing moves has no error."""
    return math.sqrt(moved / output) if output else 0.0


def _is_sound(errors: object, schemes: Sequence[Scheme]) -> bool:
    """Return whether these can be a layer's errors: one for each scheme, or none at all."""
    if not isinstance(errors, dict) or (errors and errors.keys() != {str(scheme) for scheme in schemes}):
        return False
    return all(isinstance(error, float) and 0 <= error < math.inf for error in errors.values())


def _file(checkpoint: Checkpoint, schemes: Sequence[Scheme]) -> Path:
    """Return where the errors are kept: its name says what was measured, on which text."""
    measured = (VERSION, sorted(map(str, schemes)), TEXT.read_bytes(), MAX_TOKENS, MAX_ROWS, SEED)
    key = hashlib.sha256(repr(measured).encode()).hexdigest()[:16]
    return settings().cache_dir / "survey" / f"{checkpoint.revision}-output-{key}.json"
