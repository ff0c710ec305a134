"""Any packed weight, dequantized a tile of rows at a time: right everywhere, slow, and labelled so.

Knows no format but by its grid.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

from studio.quantization.packing import PackedTensor
from studio.runtime.kernels.product import Lookup

TILE_WEIGHTS = 1 << 20
"""Weights dequantized at once: 4 MB of fp32, which stays in the cache."""


class TiledProduct(Lookup):
    """``x @ W.T`` for every scheme without an operator of its own, such as NF4 on a CPU."""

    is_fast = False

    def __init__(self, packed: PackedTensor) -> None:
        super().__init__(packed)
        self.scheme, self.shape = packed.scheme, packed.shape
        self.register_buffer("codes", packed.codes)
        self.register_buffer("scale", packed.scale)
        self.register_buffer("zero_point", packed.zero_point)
        self.register_buffer("tensor_params", packed.tensor_params)
        self.register_buffer("offset", packed.offset)

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None
    tensor_params: Tensor | None
    offset: Tensor | None

    @classmethod
    def takes(cls, packed: PackedTensor) -> bool:
        return True

    @property
    def _packed(self) -> PackedTensor:
        arrays = (self.codes, self.scale, self.zero_point, self.tensor_params, self.offset)
        return PackedTensor(self.scheme, self.shape, *arrays)

    def forward(self, x: Tensor) -> Tensor:
        rows, width = self.shape
        step = max(1, TILE_WEIGHTS // width)
        packed = self._packed
        tiles = [linear(x, packed.dequantize(i, min(i + step, rows)).to(x.dtype)) for i in range(0, rows, step)]
        return torch.cat(tiles, dim=-1)

    def rows(self, indices: Tensor) -> Tensor:
        packed = self._packed
        rows = [packed.dequantize(int(i), int(i) + 1) for i in indices.flatten()]
        return torch.cat(rows).reshape(*indices.shape, self.shape[1]).bfloat16()
