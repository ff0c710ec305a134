"""Small decoders of every family's features with random weights, and their logits in plain float64 arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Scheme
from studio.runtime.decoder.shape import DecoderShape, LayerShape, Rotation


@dataclass(frozen=True)
class Small:
    """A decoder's shape, its weights, the biases and norms by name."""

    shape: DecoderShape
    weights: dict[str, PackedTensor | Tensor]
    biases: dict[str, Tensor]
    norms: dict[str, Tensor]

    def read(self, name: str) -> tuple[PackedTensor | Tensor, Tensor | None]:
        return self.weights[name], self.biases.get(name)


def rotation(dimensions: int, base: float = 10000.0, scale: float = 1.0) -> Rotation:
    return Rotation(base ** (-torch.arange(0, dimensions, 2) / dimensions), scale)


def layer(index: int, **changes: object) -> LayerShape:
    before = f"layers.{index}."
    parts: dict[str, str | tuple[str, ...]] = {
        "attention_norm": "norm1", "qkv": ("q", "k", "v"), "output": "o", "mlp_norm": "norm2",
        "gate_up": ("gate", "up"), "down": "down",
    }  # fmt: skip
    named = {key: tuple(before + n for n in v) if isinstance(v, tuple) else before + v for key, v in parts.items()}
    for key, value in changes.items():
        if isinstance(value, tuple):
            named[key] = tuple(before + name for name in value)
        else:
            named[key] = before + value if isinstance(value, str) else value  # type: ignore[assignment]
    return LayerShape(**named)  # type: ignore[arg-type]


LLAMA = DecoderShape(
    hidden=192, heads=6, kv_heads=2, head_dim=32, intermediate_size=320, vocabulary=500, activation=0, epsilon=1e-5,
    norm_plus=0, embedding_scale=1, attention_scale=32**-0.5, attention_cap=0, logit_cap=0,
    rotations=(rotation(32),), layers=(layer(0), layer(1)), embedding="embed", head="head", final_norm="norm",
)  # fmt: skip
HEADS = {"query_norm": "q_norm", "key_norm": "k_norm"}
BEHIND = {"attention_after": "after1", "mlp_after": "after2"}
FAMILIES = {
    "llama": LLAMA,
    "qwen2": replace(LLAMA, heads=14, kv_heads=2, head_dim=64, attention_scale=0.125, rotations=(rotation(64,
    1e6),), head="embed"),
    "qwen3": replace(LLAMA, head_dim=128, rotations=(rotation(128, 1e6),), layers=(layer(0, **HEADS), layer(1,
    **HEADS))),
    "smollm3": replace(LLAMA, layers=(layer(0), layer(1, rotation=-1))),
    "mistral": replace(LLAMA, layers=(layer(0, window=9), layer(1, window=100))),
    "phi3": replace(
        LLAMA, heads=2, kv_heads=2, head_dim=96, rotations=(rotation(72, scale=1.19),),
        layers=tuple(layer(i, qkv=("qkv",), gate_up=("gate_up",)) for i in range(2)),
    ),
    "gemma": replace(
        LLAMA, heads=2, kv_heads=1, head_dim=256, activation=1, norm_plus=1, embedding_scale=13.875,
        intermediate_size=312, hidden=184, rotations=(rotation(256),), head="embed",
    ),
    "gemma2": replace(
        LLAMA, activation=1, norm_plus=1, embedding_scale=13.875, attention_cap=5.0, logit_cap=3.0, head="embed",
        layers=(layer(0, **BEHIND, window=7), layer(1, **BEHIND)),
    ),
    "gemma3": replace(
        LLAMA, activation=2, norm_plus=1, embedding_scale=13.875, rotations=(rotation(32), rotation(32, 1e6)),
        layers=(layer(0, **BEHIND, **HEADS, window=7), layer(1, **BEHIND, **HEADS, rotation=1)),
    ),
    "multi_query": replace(LLAMA, heads=8, kv_heads=1, head_dim=16, rotations=(rotation(16),)),
}  # fmt: skip


def sizes(shape: DecoderShape) -> dict[str, tuple[int, int]]:
    """Return every weight's [N, K]."""
    heads, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    found = {shape.embedding: (shape.vocabulary, shape.hidden), shape.head: (shape.vocabulary, shape.hidden)}
    for each in shape.layers:
        rows = [heads + 2 * keys] if len(each.qkv) == 1 else [heads, keys, keys]
        found |= {name: (n, shape.hidden) for name, n in zip(each.qkv, rows, strict=True)}
        rows = (
            [2 * shape.intermediate_size]
            if len(each.gate_up) == 1
            else [shape.intermediate_size, shape.intermediate_size]
        )
        found |= {name: (n, shape.hidden) for name, n in zip(each.gate_up, rows, strict=True)}
        found |= {each.output: (shape.hidden, heads), each.down: (shape.hidden, shape.intermediate_size)}
    return found


def small(
    shape: DecoderShape, scheme: Scheme | torch.dtype, special: dict[str, Scheme] | None = None, has_bias: bool = False
) -> Small:
    """Return a decoder whose weights are all in ``scheme``, but for those whose name's end is in ``special``."""
    generator = torch.Generator().manual_seed(7)
    weights: dict[str, PackedTensor | Tensor] = {}
    biases: dict[str, Tensor] = {}
    norms: dict[str, Tensor] = {}
    for name, size in sizes(shape).items():
        weight = torch.randn(*size, generator=generator) * size[1] ** -0.5
        wanted = next((s for end, s in (special or {}).items() if name.endswith(end)), scheme)
        if isinstance(wanted, torch.dtype):
            weights[name] = weight.to(wanted)
        else:
            fits = wanted if wanted.fits(size[1]) else Scheme(wanted.mode)
            weights[name] = pack(round_to_nearest(weight, fits), fits)
        if has_bias and name not in (shape.head, shape.embedding):
            biases[name] = torch.randn(size[0], generator=generator)
    for each in shape.layers:
        wide = (each.attention_norm, each.mlp_norm, each.attention_after, each.mlp_after)
        norms |= {name: torch.rand(shape.hidden, generator=generator) + 0.5 for name in wide if name}
        narrow = (each.query_norm, each.key_norm)
        norms |= {name: torch.rand(shape.head_dim, generator=generator) + 0.5 for name in narrow if name}
    norms[shape.final_norm] = torch.rand(shape.hidden, generator=generator) + 0.5
    return Small(shape, weights, biases, norms)


def reference(model: Small, tokens: Sequence[int]) -> Tensor:
    """Return the logits after each token, fp64 [T, V], on the weights that the packed numbers stand for."""
    shape, count = model.shape, len(tokens)

    def weight(name: str) -> Tensor:
        found = model.weights[name]
        return (found.dequantize() if isinstance(found, PackedTensor) else found).double()

    def times(x: Tensor, *names: str) -> Tensor:
        parts = [x @ weight(name).T + model.biases.get(name, torch.zeros(1)).double() for name in names]
        return torch.cat(parts, -1)

    def normal(x: Tensor, name: str | None) -> Tensor:
        if name is None:
            return x
        root = torch.rsqrt(x.square().mean(-1, keepdim=True) + shape.epsilon)
        return x * root * (model.norms[name].double() + shape.norm_plus)

    def rotated(x: Tensor, which: int) -> Tensor:
        if which < 0:
            return x
        turn = shape.rotations[which]
        angles = torch.arange(count).double()[:, None, None] * turn.frequencies.double()
        cos, sin, half = angles.cos() * turn.scale, angles.sin() * turn.scale, len(turn.frequencies)
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1)

    x = weight(shape.embedding)[list(tokens)] * shape.embedding_scale
    distance = torch.arange(count)[:, None] - torch.arange(count)
    for each in shape.layers:
        qkv = times(normal(x, each.attention_norm), *each.qkv).reshape(count, -1, shape.head_dim)
        q, k, v = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads], 1)
        q, k = rotated(normal(q, each.query_norm), each.rotation), rotated(normal(k, each.key_norm), each.rotation)
        k, v = (y.repeat_interleave(shape.heads // shape.kv_heads, 1) for y in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * shape.attention_scale
        if shape.attention_cap:
            scores = shape.attention_cap * torch.tanh(scores / shape.attention_cap)
        hidden = (distance < 0) | (distance >= (each.window or math.inf))
        shares = scores.masked_fill(hidden, -math.inf).softmax(-1)
        found = torch.einsum("hqk,khd->qhd", shares, v).reshape(count, -1)
        x = x + normal(times(found, each.output), each.attention_after)
        gate, up = times(normal(x, each.mlp_norm), *each.gate_up).chunk(2, -1)
        gated = (
            silu(gate) if shape.activation == 0 else gelu(gate, approximate="tanh" if shape.activation == 1 else "none")
        )
        x = x + normal(times(gated * up, each.down), each.mlp_after)
    logits = times(normal(x, shape.final_norm), shape.head)
    return shape.logit_cap * torch.tanh(logits / shape.logit_cap) if shape.logit_cap else logits
