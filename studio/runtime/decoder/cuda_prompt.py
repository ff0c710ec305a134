"""Several tokens at once on CUDA: weights dequantized to bf16 a slab at a time, products by torch. Knows no caches."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from studio.runtime.decoder.cuda_step import CudaStep
from studio.runtime.native.fragments import ROWS, Fragments
from studio.runtime.native.nvrtc import Launch

SLAB_BYTES = 32 << 20
"""Of bf16 weights at once: they stay in the second-level cache until they are multiplied with."""


class CudaPrompt:
    """A step of several tokens."""

    def __init__(self, step: CudaStep) -> None:
        self._step = step
        widest = max(ROWS * weight.width for weight in step.fragments())
        self._slab = torch.empty(max(SLAB_BYTES // 2, widest), dtype=torch.bfloat16, device=step.device)
        self._launches = {id(weight): self._of(weight) for weight in step.fragments()}

    def states(self, count: int) -> Tensor:
        """Run the tokens that the state names; return the hidden states before the final norm, fp32 [T, hidden]."""
        step, shape = self._step, self._step.shape
        x = step.embed(count)
        for index, (layer, weights) in enumerate(zip(shape.layers, step.layers, strict=True)):
            qkv = self._product(weights.qkv, self._normal(x, layer.attention_norm))
            x += self._normal(self._product([weights.output], step.attend(index, qkv)), layer.attention_after)
            inner = self._product(weights.gate_up, self._normal(x, layer.mlp_norm))
            gated = self._activated(inner[:, : shape.intermediate_size]) * inner[:, shape.intermediate_size :]
            x += self._normal(self._product([weights.down], gated), layer.mlp_after)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [T, V] of hidden states [T, hidden]."""
        shape = self._step.shape
        logits = self._product([self._step.head], self._normal(x, shape.final_norm))
        return logits if shape.logit_cap <= 0 else shape.logit_cap * torch.tanh(logits / shape.logit_cap)

    def _activated(self, gate: Tensor) -> Tensor:
        kind = self._step.shape.activation
        return silu(gate) if kind == 0 else gelu(gate, approximate="tanh" if kind == 1 else "none")

    def _normal(self, x: Tensor, norm: str | None) -> Tensor:
        if norm is None:
            return x
        root = torch.rsqrt(x.square().mean(-1, keepdim=True) + self._step.shape.epsilon)
        return x * root * self._step.norms[norm]

    def _product(self, weights: Sequence[Fragments], x: Tensor) -> Tensor:
        """Return x [T, K] times weights one below the other, fp32 [T, N]; both factors are rounded to bf16."""
        rounded = x.bfloat16()
        products = [self._times(weight, rounded) for weight in weights]
        return products[0] if len(products) == 1 else torch.cat(products, 1)

    def _times(self, weight: Fragments, x: Tensor) -> Tensor:
        rows = weight.codes.shape[0] * ROWS
        out = torch.empty(len(x), rows, dtype=torch.float32, device=x.device)
        for launch, start, stop in self._launches[id(weight)]:
            launch()
            slab = self._slab[: (stop - start) * weight.width].view(stop - start, weight.width)
            out[:, start:stop] = torch.mm(x, slab.T, out_dtype=torch.float32)
        if weight.bias is not None:
            out += weight.bias
        if not weight.is_paired:
            return out[:, : weight.rows].contiguous()
        half = out.view(len(x), -1, 2, ROWS // 2).transpose(1, 2).reshape(len(x), 2, -1)
        return half[..., : weight.rows // 2].reshape(len(x), -1)

    def _of(self, weight: Fragments) -> list[tuple[Launch, int, int]]:
        """Return a weight's slabs: the launch that makes each, its first row and the one behind its last."""
        tiles, at_once = weight.codes.shape[0], self._slab.numel() // (ROWS * weight.width)
        pieces = [(start, min(at_once, tiles - start)) for start in range(0, tiles, at_once)]
        return [
            (self._step.dequantizing(weight, start, count, self._slab), start * ROWS, (start + count) * ROWS)
            for start, count in pieces
        ]
