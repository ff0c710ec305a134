"""A Llama-like model whose steps are kernels of its own on a CUDA device (``native/decode_cuda``). Knows neither
files nor texts.

Weights stay packed. One token's step is recorded once as a CUDA graph that reads token, position and cache from the
device's
memory, so that all steps of all texts replay it; activations are fp32 between kernels and 22 bits within products.
Prompts
dequantize a slab of weights at a time to bf16 and multiply with torch.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from studio.decoder.cuda_step import Recorder, Slabs
from studio.decoder.interface import MOST_TOKENS, Decoder, Way
from studio.decoder.shape import DecoderShape
from studio.packing import PackedTensor

FEW_TOKENS = 8
"""Up to here one step after the other is faster than dequantizing all weights."""
FIRST_POSITIONS = 512
"""What a new cache has memory for; it doubles as a text grows."""

Read = Callable[[str], tuple[PackedTensor | Tensor, Tensor | None]]
"""A weight's name -> the weight [N, K] and its bias [N]."""


class CudaDecoder(Decoder["CudaCache"]):
    """The weights, laid out in the device's memory for the recorded step."""

    way = Way.CUDA

    def __init__(
        self,
        shape: DecoderShape,
        read: Read,
        norms: Mapping[str, Tensor],
        context: int,
        stop_ids: frozenset[int] = frozenset(),
        device: torch.device | None = None,
    ) -> None:
        """``read`` is asked once for every weight of ``shape.weights()``; ``norms``: every norm's weight, 1-D.

        Raises RuntimeError or OSError where the kernels cannot be had.
        """
        self.shape, self.context, self.stop_ids = shape, context, stop_ids
        self._device = device or torch.device("cuda", torch.cuda.current_device())
        self._lock = threading.Lock()  # texts share what a step writes to
        with torch.cuda.device(self._device), torch.inference_mode():
            self._step = Recorder(shape, read, norms, self._device)
            self._slabs = Slabs(self._step)
            self._state = torch.zeros_like(self._step.state, device="cpu").pin_memory()
            self._logits = torch.empty(shape.vocabulary, dtype=torch.float32).pin_memory()
            self.weight_bytes = self._step.nbytes
            self._graph = self._recorded()

    def begin(self, positions: int, bits: int = 16) -> "CudaCache":
        return CudaCache(self.shape, positions, self._device)

    def step(self, cache: "CudaCache", tokens: Sequence[int]) -> Tensor:
        for _ in self._run(cache, tokens):
            pass
        return self._logits.clone()

    def judge(self, cache: "CudaCache", tokens: Sequence[int]) -> Tensor:
        return torch.cat(
            [logits.cpu() if logits.is_cuda else logits.clone() for logits in self._run(cache, tokens, True)]
        )

    def _run(self, cache: "CudaCache", tokens: Sequence[int], all_logits: bool = False) -> Iterator[Tensor]:
        """Let tokens join the cache, yielding logits [1, V], or [T, V] of several at once when ``all_logits``; what a
        step leaves in ``_logits`` is the last's. Raises ValueError when there is no room for them."""
        count = len(tokens)
        if not 0 < count <= min(MOST_TOKENS, cache.room) or not all(0 <= t < self.shape.vocabulary for t in tokens):
            raise ValueError(f"{count} tokens do not fit")
        with self._lock, torch.cuda.device(self._device), torch.inference_mode():
            cache.reserve(cache.length + count)
            if count > FEW_TOKENS:
                self._enter(cache, tokens)
                self._step.state.copy_(self._state, non_blocking=True)
                x = self._prompt(count)
                if all_logits:
                    yield self._capped(
                        self._slabs.product([self._step.head], self._normalized(x, self.shape.final_norm))
                    )
                else:
                    self._step.x[0].copy_(x[-1])
                    self._step.launches[-1]()
                    self._logits.copy_(self._step.logits, non_blocking=True)
                torch.cuda.current_stream().synchronize()
                cache.length += count
                return
            for token in tokens:
                self._enter(cache, [token])
                self._graph.replay()
                torch.cuda.current_stream().synchronize()
                cache.length += 1
                yield self._logits.unsqueeze(0)

    def _enter(self, cache: "CudaCache", tokens: Sequence[int]) -> None:
        """Say to the device which tokens come, where and in which cache."""
        keys, values = cache.arrays
        head = [cache.length, keys.data_ptr(), values.data_ptr(), cache.held]
        self._state[: 4 + len(tokens)] = torch.tensor([*head, *tokens], dtype=torch.int64)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        """Return one token's step from the state in host memory to the logits in host memory."""
        cache = self.begin(1)
        cache.reserve(1)
        self._enter(cache, [0])

        def step() -> None:
            self._step.state.copy_(self._state, non_blocking=True)
            for launch in self._step.launches:
                launch()
            self._logits.copy_(self._step.logits, non_blocking=True)

        step()  # what is loaded at the first use is loaded before the recording
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other texts may be at work
            step()
        return graph

    def _prompt(self, count: int) -> Tensor:
        """Run several tokens at once; return the hidden states before the final norm, fp32 [T, hidden]."""
        step, shape = self._step, self.shape
        step.embed(count)
        x = step.x[:count]
        for index, layer in enumerate(shape.layers):
            weights = step.layers[index]
            qkv = self._slabs.product(weights.qkv, self._normalized(x, layer.attention_norm))
            heads = step.attend(index, qkv)
            self._join(x, self._slabs.product([weights.output], heads.bfloat16()), layer.attention_after)
            inner = self._slabs.product(weights.gate_up, self._normalized(x, layer.mlp_norm))
            gate, up = inner[:, : shape.inner], inner[:, shape.inner :]
            activated = (
                silu(gate)
                if shape.activation == 0
                else gelu(gate, approximate="none" if shape.activation == 2 else "tanh")
            )
            self._join(x, self._slabs.product([weights.down], (activated * up).bfloat16()), layer.mlp_after)
        return x

    def _join(self, x: Tensor, branch: Tensor, norm: str | None) -> None:
        x += branch if norm is None else self._normal(branch, norm)

    def _normal(self, x: Tensor, norm: str) -> Tensor:
        root = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.shape.epsilon)
        return x * root * self._step.norms[norm]

    def _normalized(self, x: Tensor, norm: str) -> Tensor:
        return self._normal(x, norm).bfloat16()

    def _capped(self, logits: Tensor) -> Tensor:
        cap = self.shape.logit_cap
        return logits if cap <= 0 else cap * torch.tanh(logits / cap)


class CudaCache:
    """Keys and values of one text at 16 bits, fp16 [layers, kv heads, positions, dimensions]; memory is taken as
    they fill."""

    bits = 16

    def __init__(self, shape: DecoderShape, positions: int, device: torch.device) -> None:
        self.capacity = positions
        self.length = 0
        self.held = 0
        """Positions there is memory for."""
        self._heads = (len(shape.layers) * shape.kv_heads, shape.dimensions)
        self._device = device
        self.arrays = self._empty(0)

    @property
    def room(self) -> int:
        return self.capacity - self.length

    @property
    def nbytes(self) -> int:
        heads, dimensions = self._heads
        return 2 * 2 * heads * dimensions * self.length

    def rewind(self, length: int) -> None:
        self.length = min(self.length, length)

    def reserve(self, positions: int) -> None:
        """Have memory for so many positions; what was there stays."""
        if positions <= self.held:
            return
        held = min(max(positions, 2 * self.held, FIRST_POSITIONS), max(self.capacity, positions))
        grown = self._empty(held)
        for new, old in zip(grown, self.arrays, strict=True):
            new[:, : self.length] = old[:, : self.length]
        self.arrays, self.held = grown, held

    def _empty(self, positions: int) -> tuple[Tensor, Tensor]:
        heads, dimensions = self._heads
        # Zeros: a part of an array that nobody wrote must not hold NaN, which times a weight of zero is one still.
        keys, values = (
            torch.zeros(heads, positions, dimensions, dtype=torch.float16, device=self._device) for _ in range(2)
        )
        return keys, values
