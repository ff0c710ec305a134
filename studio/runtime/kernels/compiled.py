"""Any scheme, through compiled code on the processor: nothing is dequantized but what is in a register.

Knows no model.
"""

from torch import Tensor

from studio.quantization.packing import PackedTensor
from studio.runtime.kernels.product import Product
from studio.runtime.native.products import decoding, multiply
from studio.runtime.native.tiles import takes, tiles_of


class CompiledProduct(Product):
    """``x @ W.T`` from tiles, summed up in fp32."""

    def __init__(self, packed: PackedTensor) -> None:
        super().__init__(packed)
        self.tiles = tiles_of(packed)
        for name in ("codes", "scale", "zero", "levels"):
            self.register_buffer(name, getattr(self.tiles, name))

    @classmethod
    def takes(cls, packed: PackedTensor) -> bool:
        return decoding() is not None and takes(packed.scheme)

    def forward(self, x: Tensor) -> Tensor:
        return multiply(self.tiles, x).to(x.dtype)
