"""What each linear weight is given while the model reads a short text: a sample of rows, and the power of its channels.

Weights of experts held in one tensor are left out: each expert is given tokens of its own, by code that has no module
to listen at. What is found depends on model and text alone, so it is kept on disk by both. Knows no scheme and no
method.
"""

import json
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.base.assets import asset
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.tensor_cache import Shelf
from studio.calibration.listeners import ActivationListener
from studio.calibration.texts import digest, positions, token_ids
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind
from studio.runtime.block_model import BlockModel
from studio.runtime.machine import fast_dtype

TEXT = asset("calibration.txt")
MAX_TOKENS = 512
MAX_ROWS = 128
SEED = 0
VERSION = 1
"""Raised when what is kept on disk changes its meaning."""
INPUTS_BYTES = 1 << 30
"""What the kept inputs of all models and texts may take on disk: about five models of 7B."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a weight [N, K] was given; weights that are given the same share one object."""

    rows: Tensor
    """[R, K], at most 128 rows spread over the text, in the dtype the model ran in."""
    power: Tensor
    """[K] fp32: the mean square of each input channel, over all tokens."""


def builtin_tokens(checkpoint: Checkpoint) -> Tensor:
    """Return the built-in text as int64 [1, T], T being 512 or as many positions as the model has.

    Raises CheckpointError without a tokenizer.
    """
    ids = token_ids(checkpoint, TEXT.read_text(encoding="utf-8"))
    return ids[: positions(checkpoint, MAX_TOKENS)].unsqueeze(0)


def inputs(checkpoint: Checkpoint, tokens: Tensor | None = None) -> Generator[Progress, None, dict[str, Inputs]]:
    """Return what :func:`calibrate` finds, at once where it was found before. Raises as it does."""
    tokens = builtin_tokens(checkpoint) if tokens is None else tokens
    shelf = Shelf(settings().cache_dir / "inputs", INPUTS_BYTES)
    name = f"{checkpoint.revision}/{digest(tokens)}-{VERSION}-{MAX_ROWS}-{SEED}.kept"
    before = _unpacked(checkpoint, shelf.recall(name) or {})
    if before is not None:
        return before
    by_layer = yield from calibrate(checkpoint, tokens)
    shelf.keep(name, _packed(by_layer))
    return by_layer


def calibrate(
    checkpoint: Checkpoint, tokens: Tensor | None = None, dtype: torch.dtype | None = None
) -> Generator[Progress, None, dict[str, Inputs]]:
    """Run the model over ``tokens`` [B, T], by default the built-in text; return what each linear layer was given.

    Layers that no token came to are missing. Raises CheckpointError when a file is damaged.
    """
    streamed = BlockModel(checkpoint, dtype or fast_dtype())
    linear = [layer for layer in checkpoint.layers if layer.kind is Kind.LINEAR and len(layer.shape) == 2]
    listener = ActivationListener(streamed.model, linear, _sampled)
    part = ""
    run = streamed.run(builtin_tokens(checkpoint) if tokens is None else tokens)
    try:
        for step in run:
            if step.detail != part:
                listener.release()
            part = step.detail
            yield step
    finally:
        run.close()
    return listener.heard


def sampled_rows(rows: int, count: int = MAX_ROWS) -> Tensor:
    """Return the indices of at most ``count`` of ``rows`` rows, ascending: one at random from each equal stretch."""
    if rows <= count:
        return torch.arange(rows, dtype=torch.int64)
    bounds = torch.arange(count + 1, dtype=torch.int64) * rows // count
    within = torch.rand(count, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    return bounds[:-1] + (within * bounds.diff()).long()


def _sampled(_: str, rows: Tensor) -> Inputs:
    """Return the sample of what a layer was given, [R, K]."""
    return Inputs(rows[sampled_rows(len(rows))].clone(), rows.float().square().mean(0))


def _packed(by_layer: dict[str, Inputs]) -> dict[str, Tensor]:
    """Return inputs as tensors with names, each once; ``layers`` says, in JSON, which layer was given which."""
    shared = list({id(given): given for given in by_layer.values()}.values())
    places = {id(given): place for place, given in enumerate(shared)}
    layers = json.dumps({name: places[id(given)] for name, given in by_layer.items()}).encode()
    packed = {"layers": torch.frombuffer(bytearray(layers), dtype=torch.uint8)}
    for place, given in enumerate(shared):
        packed |= {f"{place}.rows": given.rows, f"{place}.power": given.power}
    return packed


def _unpacked(checkpoint: Checkpoint, packed: dict[str, Tensor]) -> dict[str, Inputs] | None:
    """Return what :func:`_packed` made, None where it is not of this model."""
    widths = {layer.name: layer.shape[1] for layer in checkpoint.layers if len(layer.shape) == 2}
    try:
        layers = json.loads(packed["layers"].numpy().tobytes())
        shared = {place: Inputs(packed[f"{place}.rows"], packed[f"{place}.power"]) for place in set(layers.values())}
        by_layer = {name: shared[place] for name, place in layers.items()}
        is_sound = all(
            given.rows.ndim == 2 and given.rows.shape[1:] == given.power.shape == (widths[name],)
            for name, given in by_layer.items()
        )
    except (KeyError, ValueError, AttributeError, TypeError):
        return None
    return by_layer if is_sound else None
