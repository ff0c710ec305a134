"""Any scheme that tiles hold, through compiled code on the processor: nothing is dequantized but what is in a register,
and rows that are looked up. Knows no model.
"""

from torch import Tensor

from studio.quantization.packing import PackedTensor
from studio.runtime.kernels.product import Lookup
from studio.runtime.native.products import decoding, look_up, multiply
from studio.runtime.native.tiling import takes, tiles_of


class CompiledProduct(Lookup):
    """``x @ W.T`` from tiles, summed up in fp32."""

    def __init__(self, packed: PackedTensor) -> None:
        super().__init__(packed)
        self.tiles = tiles_of(packed)
        for name, array in self.tiles.arrays.items():
            self.register_buffer(name, array)

    @classmethod
    def takes(cls, packed: PackedTensor) -> bool:
        return decoding() is not None and takes(packed.scheme)

    def forward(self, x: Tensor) -> Tensor:
        return multiply(self.tiles, x).to(x.dtype)

    def rows(self, indices: Tensor) -> Tensor:
        return look_up(self.tiles, indices)[..., : self.width].bfloat16()
