"""A rounded weight whose scales can be trained: its codes and zero points stay, so that its layout does.

Knows no model, and not what the training is for.
"""

from dataclasses import replace

import torch
from torch import Tensor

from studio.quantization.packing import PackedTensor, pack, unpack


class TrainedScale:
    """A weight [N, K] of G groups a row; ``growth`` [N, G] is by what share each scale has grown."""

    def __init__(self, packed: PackedTensor) -> None:
        """Raises ValueError for a layout whose scales cannot be trained."""
        if not packed.scheme.mode.has_free_scales:
            raise ValueError(f"{packed.scheme} has no scales of which each can be any number")
        self._packed = packed
        self._rounded = unpack(packed)
        self._grid = packed.scheme.mode.grid
        self._scale = self._grid.scales(self._rounded)
        self.growth = torch.zeros_like(self._scale, requires_grad=True)

    def dense(self) -> Tensor:
        """Return the weight with the scales as they are now, fp32 [N, K], from which gradients reach ``growth``."""
        rounded = self._rounded
        codes = rounded.codes.reshape(*self._scale.shape, -1)
        values = self._grid.values(codes, rounded.tensor_params)
        if rounded.zero_point is not None:
            values = values - rounded.zero_point.float().unsqueeze(2)
        weight = values * (self._scale * (1 + self.growth)).unsqueeze(2)
        if rounded.offset is not None:
            weight = weight + rounded.offset.float().unsqueeze(2)
        return weight.reshape(rounded.codes.shape)

    @torch.no_grad()
    def packed(self) -> PackedTensor:
        """Return the weight as a file holds it; a scale that it cannot hold stays as it was."""
        grown = self._rounded.scale * (1 + self.growth).to(torch.float32)
        stored = grown.to(self._rounded.scale.dtype)
        is_sound = stored.isfinite() & (stored != 0)
        scale = torch.where(is_sound, stored, self._rounded.scale)
        return pack(replace(self._rounded, scale=scale), self._packed.scheme)
