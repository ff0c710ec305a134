"""What takes the place of ``nn.Linear``, GPT-2's ``Conv1D``, ``nn.Embedding`` and experts in a compressed model.

Knows nothing of how they multiply.
"""

import torch
from torch import Tensor, nn

from studio.quantization.packing import PackedTensor
from studio.runtime.kernels.product import Lookup, Product


class PackedLinear(nn.Module):
    """``x [..., K] -> x @ W.T + bias [..., N]`` on a packed weight."""

    def __init__(self, product: Product, bias: Tensor | None) -> None:
        super().__init__()
        self.product = product
        self.register_buffer("bias", bias)

    bias: Tensor | None

    @property
    def weight(self) -> Tensor:
        """W [N, K] in bf16, dequantized for this moment: Mamba multiplies with a small one of its own accord."""
        return self.product(torch.eye(self.product.width, dtype=torch.bfloat16)).T  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.product(x.reshape(-1, x.shape[-1]).contiguous())
        if self.bias is not None:
            y = y + self.bias
        return y.reshape(*x.shape[:-1], -1)


class PackedEmbedding(nn.Module):
    """Token ids [...] -> rows of a packed weight [..., K], times the factor that Gemma's and BART's embeddings have."""

    def __init__(self, product: Lookup, factor: Tensor | float | None) -> None:
        super().__init__()
        self.product = product
        self.register_buffer("factor", None if factor is None else torch.as_tensor(factor, dtype=torch.float32))

    factor: Tensor | None

    @property
    def weight(self) -> Tensor:
        """One NaN that claims W's shape [N, K], for code that asks it for the model's dtype and device."""
        shape = self.product.height, self.product.width
        return torch.full((), torch.nan, dtype=torch.bfloat16).expand(shape)

    def forward(self, indices: Tensor) -> Tensor:
        rows = self.product.rows(indices)
        return rows if self.factor is None else rows * self.factor.to(rows.dtype)


class PackedStack(nn.Module):
    """The weights of experts as one packed [E * N, K]: ``stack[e]`` is expert e's in bf16, [N, K] or [K, N].

    The model's own code takes one expert after the other out of its parameter; from here it gets each dequantized for
    that moment, never two at once.
    """

    is_fast = False

    def __init__(self, packed: PackedTensor, experts: int, transposed: bool) -> None:
        super().__init__()
        self.scheme, self.shape, self.transposed = packed.scheme, packed.shape, transposed
        self.rows = packed.shape[0] // experts
        for name, array in packed.arrays().items():
            self.register_buffer(name, array)

    def __getitem__(self, expert: Tensor | int) -> Tensor:
        packed = PackedTensor.of(self.scheme, self.shape, self._buffers)  # type: ignore[arg-type]
        start = int(expert) * self.rows
        weight = packed.dequantize(start, start + self.rows).to(torch.bfloat16)
        return weight.T if self.transposed else weight
