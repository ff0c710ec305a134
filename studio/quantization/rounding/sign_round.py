"""Tuned rounding: codes and scales of all weights of a block together, by signed gradient descent on what it says.

Source: SignRound (Cheng et al. 2023). Before a weight is rounded an offset is added to it, at most half a step of the
grid, which the gradient of the block's error moves by equal amounts, only its sign being used; the scales move with
them. A step of rounding lets the gradient through as it is. Begins at a rounding that is good already. Knows no model:
the block is a function it is handed.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from studio.quantization.rounding.affine import halves
from studio.quantization.rounding.quantized_weight import EPSILON, QuantizedWeight
from studio.quantization.scheme import Scheme

STEPS = 32
SCALE_SHARE = 0.02
"""What a scale may move in all steps, against half a step of the grid."""
BESIDE = 0.25
"""How far from its level a weight begins that the first rounding did not take to the nearest one, in steps."""

Loss = Callable[[Mapping[str, Tensor], int], Tensor]
"""Dense weights [N, K] by name, the number of the step -> the error, with gradients."""


@dataclass(frozen=True, eq=False)
class Start:
    """A weight [N, K] as it was, and rounded."""

    weight: Tensor
    scheme: Scheme
    rounded: QuantizedWeight


class _Weight:
    """A weight that moves; its groups are [N, G, g]."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._grid = start.scheme.mode.grid
        rounded = start.rounded
        shape = (*rounded.scale.shape, -1)
        every = torch.arange(2**start.scheme.mode.bits, dtype=torch.uint8, device=start.weight.device)
        levels = self._grid.values(every, rounded.tensor_params)
        self.step = float(levels.max() - levels.min()) / (len(levels) - 1)
        self._scale = rounded.scale.half().float().unsqueeze(2)
        self._zero = replace(rounded, scale=self._scale.squeeze(2)).zeros().unsqueeze(2)
        normal = start.weight.float().reshape(shape) / self._scale + self._zero
        codes = rounded.codes.reshape(shape)
        level = self._grid.values(codes, rounded.tensor_params)
        is_nearest = self._grid.encode(normal, rounded.tensor_params).to(torch.uint8) == codes
        self._normal = torch.where(is_nearest, normal, level + (normal - level).sign() * (BESIDE * self.step))
        self.offset = torch.zeros_like(self._normal, requires_grad=True)
        self.growth = torch.zeros_like(self._scale, requires_grad=True)

    def codes(self) -> Tensor:
        with torch.no_grad():
            return self._grid.encode(self._normal + self.offset, self._start.rounded.tensor_params).to(torch.uint8)

    def dense(self) -> Tensor:
        values = self._grid.values(self.codes(), self._start.rounded.tensor_params) - self._zero
        through = values + (self.offset - self.offset.detach())
        return (through * (self._scale * (1 + self.growth))).reshape(self._start.weight.shape)

    @torch.no_grad()
    def move(self, length: float) -> None:
        """Go against the gradients' signs; ``length`` is a share of the whole way."""
        for tensor, most in ((self.offset, self.step / 2), (self.growth, SCALE_SHARE)):
            if tensor.grad is not None:
                tensor.sub_(tensor.grad.sign_(), alpha=2 * most * length).clamp_(-most, most)
                tensor.grad = None

    def result(self) -> QuantizedWeight:
        scale = (self._scale * (1 + self.growth.detach())).squeeze(2)
        sound = torch.where(scale.half().abs() >= EPSILON, scale, self._scale.squeeze(2)).half().float()
        offset = None if self._start.rounded.offset is None else halves(-self._zero.squeeze(2) * sound)
        codes = self.codes().reshape(self._start.weight.shape)
        return replace(self._start.rounded, codes=codes, scale=sound, offset=offset)


def tuned(
    starts: Mapping[str, Start], loss: Loss, steps: int = STEPS
) -> Generator[None, None, dict[str, QuantizedWeight]]:
    """Yield after each step and return the weights of a block, rounded: of all the way, or as they came where not less.

    ``loss`` at step -1 is that of all there is to read, without gradients.
    """
    weights = {name: _Weight(start) for name, start in starts.items()}
    with torch.no_grad():
        before = loss({name: weight.dense() for name, weight in weights.items()}, -1)
    for step in range(steps):
        with torch.enable_grad():
            error = loss({name: weight.dense() for name, weight in weights.items()}, step)
            error.backward()
        for weight in weights.values():
            weight.move((1 - step / steps) / steps)
        yield
    moved = {name: weight.result() for name, weight in weights.items()}
    with torch.no_grad():
        after = loss({name: weight.dense() for name, weight in weights.items()}, -1)
    return moved if bool(after < before) else {name: start.rounded for name, start in starts.items()}
