"""Which outputs of a layer matter together: second moments of the gradients that come back to them.

The other side of what ``token_weights`` finds, from the same pass backward: where that keeps one number for a token,
this keeps, for each weight [N, K], G = E[g g^T] [N, N] over tokens, the output side of the Fisher information's
Kronecker factors. Source: K-FAC (Martens and Grosse 2015). Knows nothing of schemes or rounding.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from studio.checkpoint.layers import Layer
from studio.quantization.rounding import Statistics

MOMENTS_BYTES = 2 << 30
"""What all moments may take in memory: those of the widest layers are then not kept, which are rounded without."""
PIECE = 4096
"""Tokens that are summed in the gradient's own precision, of which bf16's eight bits are enough for so few."""


class OutputMoments:
    """Sums up what comes back to the layers that fit in memory."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._sums: dict[str, Tensor] = {}
        self._tokens: dict[str, int] = {}
        self._wanted: set[str] = set()
        left = MOMENTS_BYTES
        for layer in sorted(layers, key=lambda layer: layer.matrix[0]):
            left -= 4 * layer.matrix[0] ** 2
            if left >= 0:
                self._wanted.add(layer.name)

    def add(self, name: str, gradient: Tensor) -> None:
        """Add the gradient [..., N] that came back to a layer's output."""
        if name not in self._wanted:
            return
        for rows in gradient.reshape(-1, gradient.shape[-1]).split(PIECE):
            given = rows if rows.dtype is torch.bfloat16 else rows.float()  # squares of fp16 would vanish
            sums = (given.T @ given).float()
            self._sums[name] = self._sums[name].add_(sums) if name in self._sums else sums
            self._tokens[name] = self._tokens.get(name, 0) + len(rows)

    def statistics(self) -> dict[str, Statistics]:
        """Give away the moments of each layer that a gradient came to, by name: ``hessian`` [N, N] is G.

        They are the sums themselves, divided in place: two copies of all would be gigabytes.
        """
        sums, self._sums = self._sums, {}
        return {name: Statistics(each.div_(self._tokens[name]), self._tokens[name]) for name, each in sums.items()}
