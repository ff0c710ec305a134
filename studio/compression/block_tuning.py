"""A block's weights tuned together against what the block says with the original ones, on the same inputs.

Both run in fp32: what is tuned away is finer than bf16 on a residual stream. Knows nothing of files or plans.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from studio.checkpoint.layers import Layer
from studio.quantization.rounding import QuantizedWeight
from studio.quantization.rounding.sign_round import Start, tuned
from studio.runtime.module_hooks import Call

LOTS = 4
"""Into how many the windows are dealt: a step looks at one of them."""


def tuned_block(
    call: Call, starts: Mapping[Layer, Start], weights: Tensor | None, pause: Callable[[], None]
) -> dict[Layer, QuantizedWeight]:
    """Return the weights of the block that was called as ``call``, rounded with its output in view.

    ``weights`` [B * T] say how much each token of the output counts, None all alike; ``pause`` is called after each.
    """
    names = {layer.name.removeprefix(f"{call.unit}."): layer for layer in starts}
    others = {name: _wide(tensor) for name, tensor in call.module.state_dict().items() if name not in names}
    windows = next(arg.shape[0] for arg in _tensors((call.args, call.kwargs)) if arg.ndim == 3)
    unhooked = _Unhooked(call.module)
    lots = [torch.arange(first, windows, LOTS, dtype=torch.int64) for first in range(min(LOTS, windows))]

    def said(dense: Mapping[str, Tensor], lot: Tensor) -> Tensor:
        args, kwargs = (_of_lot(given, lot, windows) for given in (call.args, call.kwargs))
        shaped = {name: w.mT if names[name].transposed else w for name, w in dense.items()}
        tensors = {f"module.{name}": tensor for name, tensor in {**others, **shaped}.items()}
        output = functional_call(unhooked, tensors, args, kwargs)
        return output if isinstance(output, Tensor) else output[0]

    originals = {name: starts[layer].weight.float() for name, layer in names.items()}
    with torch.no_grad():
        targets = [said(originals, lot) for lot in lots]
    counts = torch.ones(windows, targets[0].shape[1], dtype=torch.float32)
    if weights is not None and len(weights) == counts.numel():
        counts = weights.reshape(counts.shape)

    def loss(dense: Mapping[str, Tensor], step: int) -> Tensor:
        asked = range(len(lots)) if step < 0 else (step % len(lots),)
        errors = [(said(dense, lots[i]) - targets[i]).square().mean(-1) * counts[lots[i]] for i in asked]
        return torch.cat(errors).mean()

    steps = tuned({name: starts[layer] for name, layer in names.items()}, loss)
    try:
        while True:
            next(steps)
            pause()
    except StopIteration as finished:
        rounded: dict[str, QuantizedWeight] = finished.value
    return {layer: rounded[name] for name, layer in names.items()}


class _Unhooked(nn.Module):
    """A module without the hooks that load its weights and drop them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.forward(*args, **kwargs)


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    parts = given.values() if isinstance(given, Mapping) else given if isinstance(given, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().float() if tensor.is_floating_point() else tensor


def _of_lot(given: Any, lot: Tensor, windows: int) -> Any:
    """Return what a block is given of the windows of a lot, in fp32."""
    if isinstance(given, Tensor):
        if given.ndim == 3 and given.shape[1] == 1 and given.shape[0] % windows == 0:  # a bias for each head
            given = given.reshape(windows, -1, *given.shape[1:])[lot].flatten(0, 1)
        elif given.ndim > 1 and given.shape[0] == windows:
            given = given[lot]
        return _wide(given)
    if isinstance(given, Mapping):
        return {name: _of_lot(part, lot, windows) for name, part in given.items()}
    if isinstance(given, tuple | list):
        return tuple(_of_lot(part, lot, windows) for part in given)
    return given
