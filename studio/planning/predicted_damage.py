"""What rounding each layer would cost the predictions: a share of their KL divergence from the original's.

Of a layer's KL divergence, half of E[(g^T Δ x)^2] with g the gradient at its output (``calibration/token_weights.py``),
it keeps the part in which neither output channels nor the errors of different weights go together: 1/2 sum_k E[x_k^2
|g|^2 / N] |Δ_k|^2, nats a token, where Δ is the error of rounding to nearest. It is added up over
rows that stand for all of a large weight (``layer_losses.spread``). Layers do not see each other's errors: on
the built-in model their sum is about four fifths of what is measured, at three to five bits alike. Knows no plan, and
nothing of how weights are rounded.

A head is such a layer too. An embedding's row is met when its token is read: an error in column k costs 1/2 E[g_k^2]
/ N, g the gradient at its output and N its rows, as if all were read alike. One tensor that is both costs the sum.
"""

import json
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from studio.base import json_cache
from studio.base.assets import asset
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.steps import relayed
from studio.base.tensor_cache import Shelf
from studio.calibration import activations
from studio.calibration.listeners import listen_to_gradients
from studio.calibration.texts import digest
from studio.calibration.token_weights import SEED, lots, rademacher_gradient
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, ratio_defining
from studio.planning import layer_losses
from studio.planning.layer_figure import MeasuredFigure
from studio.planning.layer_losses import Figures, Loss, Steps, calibrating
from studio.quantization.scheme import Scheme
from studio.runtime.block_model import BlockModel
from studio.runtime.machine import fast_dtype

VERSION = 3
"""Raised when the figures change their meaning: those kept on disk are then not read any more."""
SHIPPED = "damages.json"
COSTS_BYTES = 256 << 20
"""What the kept costs of all models and texts may take on disk."""


def measure(checkpoint: Checkpoint, schemes: Sequence[Scheme], tokens: Tensor | None = None) -> Steps:
    """Return the predicted damage of every weight, nats a token, at once if it was measured before.

    ``tokens`` [W, T] is what the model reads, by default a short built-in text. Raises CheckpointError when the files
    are damaged, or have no tokenizer.
    """
    shipped = None if tokens is not None else shipped_damages(checkpoint, schemes)
    if shipped is not None:
        return shipped
    tokens = activations.builtin_tokens(checkpoint) if tokens is None else tokens
    file = layer_losses.file_of(checkpoint, "damage", schemes, VERSION, SEED, digest(tokens))
    before = layer_losses.recall(file, checkpoint, schemes)
    if before is not None:
        return before
    costs = yield from relayed(column_costs(checkpoint, tokens), calibrating)
    losses = {name: damage_loss(cost) for name, cost in costs.items()}
    found = yield from layer_losses.figures(checkpoint, losses, schemes, "damage", layer_losses.spread)
    json_cache.keep(file, found)
    return found


@cache
def _shipped() -> dict[str, Any]:
    """Return what ``make reference-points`` measured: ``{"model": …, "version": …, "damages": {layer: {…}}}``."""
    found: dict[str, Any] = json.loads(asset(SHIPPED).read_text(encoding="utf-8"))
    return found


def shipped_damages(checkpoint: Checkpoint, schemes: Sequence[Scheme]) -> Figures | None:
    """Return the damages of the built-in model that come with the program; None of another model or another scheme.

    Measured once, on the text that is read by default: the page's first seconds need not measure them again.
    """
    found = _shipped()
    if (found["model"], found["version"]) != (checkpoint.name, VERSION):
        return None
    lines: dict[str, dict[str, float]] = found["damages"]
    layers = {layer.name: layer for layer in ratio_defining(checkpoint.layers, True) if layer.name in lines}
    wanted = {name: [str(s) for s in schemes if s.fits(layer.matrix[1])] for name, layer in layers.items()}
    if any(scheme not in lines[name] for name, names in wanted.items() for scheme in names):
        return None
    return {name: {scheme: lines[name][scheme] for scheme in names} for name, names in wanted.items()}


def damage_loss(cost: Tensor) -> Loss:
    """Return what errors in a layer's weight cost the predictions, ``cost`` [K] being those of its columns."""
    return Loss(lambda rows: float(rows.square().sum(0) @ cost), lambda moved, _: moved)


def column_costs(checkpoint: Checkpoint, tokens: Tensor) -> Generator[Progress, None, dict[str, Tensor]]:
    """Yield while the model reads ``tokens`` [W, T]; return what an error of one in each column of a weight costs.

    fp32 [K], nats a token, by name; at once where it was found before. Layers that nothing comes to, or whose gradients
    are not finite, are missing. Raises CheckpointError for damaged files.
    """
    shelf = Shelf(settings().cache_dir / "costs", COSTS_BYTES)
    name = f"{checkpoint.revision}/{digest(tokens)}-{VERSION}-{SEED}.kept"
    widths = {layer.name: layer.shape[1] for layer in checkpoint.layers if len(layer.shape) == 2}
    before = shelf.recall(name) or {}
    if before and all(cost.shape == (widths.get(layer),) for layer, cost in before.items()):
        return before
    found = yield from _costs(checkpoint, tokens)
    if found:
        shelf.keep(name, found)
    return found


def _costs(checkpoint: Checkpoint, tokens: Tensor) -> Generator[Progress, None, dict[str, Tensor]]:
    model = BlockModel(checkpoint, fast_dtype())
    powers: dict[str, Tensor] = {}

    def pulled(name: str, given: Tensor, gradient: Tensor) -> None:
        weight = gradient.float().square().mean(-1, keepdim=True)
        power = (given.float().square() * weight).flatten(0, -2).sum(0)
        powers[name] = powers[name] + power if name in powers else power

    def read(gradient: Tensor) -> None:
        for layer in embeddings:
            if layer.shape[1] == gradient.shape[-1]:
                power = gradient.float().square().flatten(0, -2).sum(0) / layer.shape[0]
                powers[layer.name] = powers[layer.name] + power if layer.name in powers else power

    matrices = [layer for layer in checkpoint.layers if len(layer.shape) == 2]
    embeddings = [layer for layer in matrices if layer.kind is Kind.EMBEDDING]
    heads = {layer.name: layer.name for layer in matrices if layer.kind is Kind.HEAD}
    heads |= {name: layer.name for layer in embeddings for name in layer.tied}
    heard = [layer for layer in matrices if layer.kind is Kind.LINEAR]
    heard += [replace(embeddings[0], name=name) for name in heads] if embeddings else []
    listen_to_gradients(model.model, heard, lambda name, given: partial(pulled, heads.get(name, name), given.detach()))
    generator = torch.Generator().manual_seed(SEED)
    for lot in lots(checkpoint, tokens):
        yield from model.run_backward(lot, lambda logits: rademacher_gradient(logits, generator), read)
    costs = {name: power.cpu() / (2 * tokens.numel()) for name, power in powers.items()}
    return {name: cost for name, cost in costs.items() if bool(cost.isfinite().all())}


FIGURE = MeasuredFigure(
    "damage", by=measure, adds_up=True, bounds=(1e-5, 1e-1), map_format=".2g", tick_format="g", card_format=".2g"
)
