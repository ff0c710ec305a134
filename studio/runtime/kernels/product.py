"""What a product with a packed weight is, whichever way it is computed. Knows no way."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from studio.quantization.packing import PackedTensor


class Product(nn.Module, ABC):
    """``x [M, K] -> x @ W.T [M, N]`` for one packed [N, K] weight, in x's dtype (bf16)."""

    is_fast: ClassVar[bool] = True
    """False where every product dequantizes again, which the page says."""

    @classmethod
    @abstractmethod
    def takes(cls, packed: PackedTensor) -> bool:
        """Return whether this product can hold ``packed``."""

    @abstractmethod
    def __init__(self, packed: PackedTensor) -> None:
        super().__init__()
        self.height, self.width = packed.shape
        """N and K."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...


class Lookup(Product):
    """A product whose rows can be looked up too: what an embedding, tied to the head or not, stands on."""

    @abstractmethod
    def rows(self, indices: Tensor) -> Tensor:
        """Return the rows of W that ``indices`` [...] name, bf16 [..., K]."""
