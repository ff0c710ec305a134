"""The modules that take the place of ``nn.Linear``, GPT-2's ``Conv1D`` and ``nn.Embedding`` in a compressed model."""

from torch import Tensor, nn

from studio.kernels.product import Lookup, Product


class PackedLinear(nn.Module):
    """``x [..., K] -> x @ W.T + bias [..., N]`` on a packed weight."""

    def __init__(self, product: Product, bias: Tensor | None) -> None:
        super().__init__()
        self.product = product
        self.register_buffer("bias", bias)

    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.product(x.reshape(-1, x.shape[-1]).contiguous())
        if self.bias is not None:
            y = y + self.bias
        return y.reshape(*x.shape[:-1], -1)


class PackedEmbedding(nn.Module):
    """Token ids [...] -> rows of a packed weight [..., K], times the factor that Gemma's embedding has."""

    def __init__(self, product: Lookup, factor: Tensor | None) -> None:
        super().__init__()
        self.product = product
        self.register_buffer("factor", factor)

    factor: Tensor | None

    def forward(self, indices: Tensor) -> Tensor:
        rows = self.product.rows(indices)
        return rows if self.factor is None else rows * self.factor.to(rows.dtype)
