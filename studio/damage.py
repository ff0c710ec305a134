"""What rounding each layer would cost the predictions, from the text that calibrates: which layers to keep at 8 bits.

Of a layer's KL divergence, half of E[g^2 (x Δ)^2] with g the gradient at its output (``fisher``), it keeps the part in
which neither output channels nor the errors of different weights go together: 1/2 sum_k E[x_k^2 |g|^2 / N] |Δ_k|^2,
nats a token, where Δ is the error of rounding to nearest. Layers do not see each other's errors.
"""

from collections.abc import Generator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from studio.architecture import Kind
from studio.blocks import BlockModel, Step
from studio.checkpoint import Checkpoint
from studio.fisher import SEED, against_signs, lots
from studio.model import COMPUTE
from studio.rounding import dequantize, round_to_nearest
from studio.scheme import Scheme


def damages(
    checkpoint: Checkpoint, schemes: Mapping[str, Scheme], tokens: Tensor
) -> Generator[Step, None, dict[str, float]]:
    """Yield while the model reads ``tokens`` [W, T]; return the predicted KL divergence of each layer in its scheme.

    Of ``schemes``, by name, linear weights that nothing comes to are missing. Raises CheckpointError for damaged files.
    """
    model = BlockModel(checkpoint, COMPUTE)
    layers = [x for x in checkpoint.layers if x.name in schemes and x.kind is Kind.LINEAR and len(x.shape) == 2]
    powers: dict[str, Tensor] = {}

    def pulled(name: str, given: Tensor, gradient: Tensor) -> None:
        weight = gradient.float().square().mean(-1, keepdim=True)
        power = (given.float().square() * weight).flatten(0, -2).sum(0)
        powers[name] = powers[name] + power if name in powers else power

    def listen(name: str, _: Any, given: tuple[Any, ...], said: Any) -> None:
        if given and isinstance(said, Tensor) and said.requires_grad:
            said.register_hook(partial(pulled, name, given[0].detach()))  # type: ignore[no-untyped-call]

    for layer in layers:
        module = model.model.get_submodule(layer.name.rpartition(".")[0])
        module.register_forward_hook(partial(listen, layer.name))
    generator = torch.Generator().manual_seed(SEED)
    for lot in lots(checkpoint, tokens):
        yield from model.run_backward(lot, lambda logits: against_signs(logits, generator))
    found = {}
    for layer in layers:
        if layer.name in powers:
            scheme = schemes[layer.name]
            weight = checkpoint.read(layer).float()
            moved = dequantize(round_to_nearest(weight, scheme), scheme.mode) - weight
            found[layer.name] = float(moved.square_().sum(0) @ powers[layer.name]) / (2 * tokens.numel())
    return found
