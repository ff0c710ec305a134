"""What a chat asks of a model, whichever way its steps are computed. Knows neither tokenizers nor sampling."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import Generic, Literal, Protocol, TypeVar

from torch import Tensor

from studio.runtime.machine import available_memory

MOST_TOKENS = 128
"""Prompt tokens taken at once: few enough that Stop is heard twice a second on a small machine."""
KV_BITS = (16, 8, 4)


class Backend(StrEnum):
    """How a model's steps are computed; the page says which."""

    NATIVE = "native"
    """Compiled code on the processor."""
    CUDA = "cuda"
    """Own kernels on the GPU, in one CUDA graph."""
    GENERAL = "general"
    """transformers' modules, operator by operator."""


Reason = Literal["", "architecture", "compiler", "scheme", "gpu_shape", "gpu_kernels", "gpu_memory"]
"""Why a model goes the general way: it is not Llama-like, nothing can be compiled here, or groups do not fit tiles; why
it goes the processor's where there is a GPU: the kernels do not know its shape or its groups, could not be compiled, or
the weights do not fit."""


class Cache(Protocol):
    """Keys and values of one text."""

    length: int
    """Positions that are filled."""
    bits: int

    @property
    def room(self) -> int:
        """Positions that are free."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the positions that are filled."""
        ...

    def rewind(self, length: int) -> None:
        """Forget everything from a position on. Raises ValueError where that cannot be done; it is then of no use."""
        ...


Kept = TypeVar("Kept", bound=Cache)


class Decoder(ABC, Generic[Kept]):
    """A model's weights, which any number of texts share."""

    backend: Backend
    weight_bytes: int
    """What the weights take in memory."""
    vocabulary: int
    """Tokens it knows."""
    context: int
    """Positions a text can have."""
    stop_ids: frozenset[int]
    """Tokens that end an answer, as the model's files say."""
    kv_bits: tuple[int, ...] = (16,)
    """What its caches can be kept at."""
    is_slow: bool = False
    """Whether some weights are dequantized again for every product."""
    reason: Reason = ""
    """Why no faster way was taken."""

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that a step of one token reads: without experts and rows of an embedding it passes by."""
        return self.weight_bytes

    def kv_bytes(self, positions: int, bits: int = 16) -> int:
        """Return what keys and values of so many positions take; 0 where that is not known before they are there."""
        return 0

    def free_bytes(self) -> int:
        """Return the bytes that keys and values may still take where the model is."""
        return available_memory()

    @abstractmethod
    def begin(self, positions: int, bits: int = 16) -> Kept:
        """Return an empty cache for a text of at most ``positions`` tokens."""

    @abstractmethod
    def step(self, cache: Kept, tokens: Sequence[int]) -> Tensor:
        """Let at most ``MOST_TOKENS`` tokens join the cache; return the logits after the last, fp32 [V] on the CPU."""

    @abstractmethod
    def forward_all(self, cache: Kept, tokens: Sequence[int]) -> Tensor:
        """The same with the logits after each, fp32 [T, V]."""
