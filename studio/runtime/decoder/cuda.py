"""A Llama-like model whose steps are kernels of its own on a CUDA device (``native/cuda``).

Weights stay packed. One token's step is recorded once as a CUDA graph that reads token, position and cache from the
device's memory, so that all steps of all texts replay it; activations are fp32, within products 22 bits. Prompts
dequantize a slab of weights at a time to bf16. Knows neither files nor texts.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from studio.base.pointers import CUDA, address
from studio.runtime.decoder.cuda_prompt import CudaPrompt
from studio.runtime.decoder.cuda_step import CudaStep, ReadWeight
from studio.runtime.decoder.interface import MOST_TOKENS, Backend, Decoder
from studio.runtime.decoder.shape import DecoderShape

FEW_TOKENS = 8
"""Up to here one step after the other is faster than dequantizing all weights."""
FIRST_POSITIONS = 512
"""What a new cache has memory for; it doubles as a text grows."""


class CudaDecoder(Decoder["CudaCache"]):
    """The weights, laid out in the device's memory for the recorded step."""

    backend = Backend.CUDA

    def __init__(
        self,
        shape: DecoderShape,
        read: ReadWeight,
        norms: Mapping[str, Tensor],
        context: int,
        stop_ids: frozenset[int] = frozenset(),
        device: torch.device | None = None,
    ) -> None:
        """``read`` is asked once for every weight of ``shape.weights()``; ``norms``: every norm's weight, 1-D.

        Raises RuntimeError or OSError where the kernels cannot be had.
        """
        self.shape, self.context, self.stop_ids = shape, context, stop_ids
        self.vocabulary = shape.vocabulary
        self._device = device or torch.device("cuda", torch.cuda.current_device())
        self._lock = threading.Lock()  # texts share what a step writes to
        with torch.cuda.device(self._device), torch.inference_mode():
            self._step = CudaStep(shape, read, norms, self._device)
            self._prompt = CudaPrompt(self._step)
            self._state = torch.zeros_like(self._step.state, device="cpu").pin_memory()
            self._logits = torch.empty(shape.vocabulary, dtype=torch.float32, device="cpu").pin_memory()
            self.weight_bytes = self._step.nbytes
            self._graph = self._recorded()

    def begin(self, positions: int, bits: int = 16) -> "CudaCache":
        return CudaCache(self.shape, positions, self._device)

    @property
    def step_bytes(self) -> int:
        embedding = self._step.embedding
        return self.weight_bytes - (0 if embedding is self._step.head else embedding.nbytes)

    def free_bytes(self) -> int:
        """Of the device's memory, what torch holds for new arrays among it."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)

    def kv_bytes(self, positions: int, bits: int = 16) -> int:
        return 2 * 2 * len(self.shape.layers) * self.shape.kv_heads * self.shape.head_dim * positions

    def step(self, cache: "CudaCache", tokens: Sequence[int]) -> Tensor:
        with self._at_work(cache, tokens) as is_few:
            if is_few:
                for token in tokens:
                    self._one(cache, token)
            else:
                self._step.x[0] = self._several(cache, tokens)[-1]
                self._step.last()
                self._logits.copy_(self._step.logits)
                cache.length += len(tokens)
            return self._logits.clone()

    def forward_all(self, cache: "CudaCache", tokens: Sequence[int]) -> Tensor:
        with self._at_work(cache, tokens) as is_few:
            if is_few:
                return torch.stack([self._one(cache, token).clone() for token in tokens])
            logits = self._prompt.logits(self._several(cache, tokens)).cpu()
            cache.length += len(tokens)
            return logits

    @contextmanager
    def _at_work(self, cache: "CudaCache", tokens: Sequence[int]) -> Iterator[bool]:
        """Have the device for oneself, and room for the tokens; say whether they are few.

        Raises ValueError when they do not fit.
        """
        count = len(tokens)
        if not 0 < count <= min(MOST_TOKENS, cache.room) or not all(0 <= t < self.shape.vocabulary for t in tokens):
            raise ValueError(f"{count} tokens do not fit")
        with self._lock, torch.cuda.device(self._device), torch.inference_mode():
            cache.reserve(cache.length + count)
            yield count <= FEW_TOKENS

    def _one(self, cache: "CudaCache", token: int) -> Tensor:
        """Let a token join the cache; return its logits [V], which are overwritten by the next."""
        self._enter(cache, [token])
        self._graph.replay()
        torch.cuda.current_stream().synchronize()
        cache.length += 1
        return self._logits

    def _several(self, cache: "CudaCache", tokens: Sequence[int]) -> Tensor:
        """Run tokens behind the cache's; return their hidden states before the final norm, fp32 [T, hidden]."""
        self._enter(cache, tokens)
        self._step.state.copy_(self._state)
        return self._prompt.states(len(tokens))

    def _enter(self, cache: "CudaCache", tokens: Sequence[int]) -> None:
        """Say to the device which tokens come, where and in which cache."""
        shape = self.shape
        if cache.heads != (len(shape.layers) * shape.kv_heads, shape.head_dim):
            raise ValueError("the cache is of another model")
        room = cache.heads[0] * cache.held * cache.heads[1]
        keys, values = (address(array, torch.float16, room, CUDA) for array in cache.arrays)
        head = [cache.length, keys, values, cache.held]
        self._state[: 4 + len(tokens)] = torch.tensor([*head, *tokens], dtype=torch.int64, device="cpu")

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


class CudaCache:
    """Keys and values of one text, fp16 [layers, kv heads, positions, head_dim]; memory is taken as they fill."""

    bits = 16

    def __init__(self, shape: DecoderShape, positions: int, device: torch.device) -> None:
        self.capacity = positions
        self.length = 0
        self.held = 0
        """Positions there is memory for."""
        self.heads = (len(shape.layers) * shape.kv_heads, shape.head_dim)
        """How many there are in all layers, and how wide they are."""
        self._device = device
        self.arrays = self._empty(0)

    @property
    def room(self) -> int:
        return self.capacity - self.length

    @property
    def nbytes(self) -> int:
        heads, head_dim = self.heads
        return 2 * 2 * heads * head_dim * self.length

    def rewind(self, length: int) -> None:
        self.length = min(self.length, length)

    def reserve(self, positions: int) -> None:
        """Have memory for so many positions; what was there stays. Raises MemoryError where there is none left."""
        if positions <= self.held:
            return
        held = min(max(positions, 2 * self.held, FIRST_POSITIONS), max(self.capacity, positions))
        try:
            grown = self._empty(held)
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error
        for new, old in zip(grown, self.arrays, strict=True):
            new[:, : self.length] = old[:, : self.length]
        self.arrays, self.held = grown, held

    def _empty(self, positions: int) -> tuple[Tensor, Tensor]:
        heads, head_dim = self.heads
        # Zeros: a part of an array that nobody wrote must not hold NaN, which times a weight of zero is one still.
        keys, values = (
            torch.zeros(heads, positions, head_dim, dtype=torch.float16, device=self._device) for _ in range(2)
        )
        return keys, values
