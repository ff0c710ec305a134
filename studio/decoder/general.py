"""A model whose steps are transformers' own modules: any architecture, at the price of dispatching hundreds of small
operations a token."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from studio.decoder.interface import Decoder, Reason, Way
from studio.decoder.kv import key_values
from studio.model import passed_by, slow_schemes, weight_bytes


class GeneralDecoder(Decoder["GeneralCache"]):
    """A transformers model as it is, original or on packed weights."""

    way = Way.GENERAL

    def __init__(self, model: nn.Module, reason: Reason = "") -> None:
        self.model, self.reason = model, reason
        self.weight_bytes = weight_bytes(model)
        self.is_slow = slow_schemes(model)
        self.vocabulary = int(getattr(model.config, "vocab_size", None) or 1 << 30)
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)
        self.stop_ids = stop_ids(getattr(getattr(model, "generation_config", None), "eos_token_id", None))
        # Before transformers 5.24 it had other names, of its own where blocks keep a state and no keys (Mamba).
        names = inspect.signature(model.forward).parameters
        known = ("cache", "cache_params", "past_key_values")
        self._cache_name = next((name for name in known if name in names), "past_key_values")

    @property
    def step_bytes(self) -> int:
        return self.weight_bytes - passed_by(self.model)

    def kv_bytes(self, positions: int, bits: int = 16) -> int:
        known = key_values(self.model.config)
        return 0 if known is None else known.nbytes(positions)

    def begin(self, positions: int, bits: int = 16) -> "GeneralCache":
        return GeneralCache(self.model.config, positions)

    def step(self, cache: "GeneralCache", tokens: Sequence[int]) -> Tensor:
        return self._logits(cache, tokens, 1)[-1]

    def judge(self, cache: "GeneralCache", tokens: Sequence[int]) -> Tensor:
        return self._logits(cache, tokens, 0)

    @torch.inference_mode()
    def _logits(self, cache: "GeneralCache", tokens: Sequence[int], keep: int) -> Tensor:
        kept = {self._cache_name: cache.kept}
        ids = torch.tensor([list(tokens)], dtype=torch.int64, device="cpu")
        found = self.model(ids, **kept, use_cache=True, logits_to_keep=keep).logits
        cache.length += len(tokens)
        return found[0].float()  # type: ignore[no-any-return]


class GeneralCache:
    """transformers' cache, which grows with the text."""

    bits = 16

    def __init__(self, config: Any, positions: int) -> None:
        from transformers import DynamicCache

        self.kept = DynamicCache(config=config)
        self.capacity = positions
        self.length = 0

    @property
    def room(self) -> int:
        return self.capacity - self.length

    @property
    def nbytes(self) -> int:
        tensors = (value for layer in self.kept.layers for value in vars(layer).values() if isinstance(value, Tensor))
        return sum(tensor.nbytes for tensor in tensors)

    def rewind(self, length: int) -> None:
        """Forget everything from a position on. Raises ValueError for a model that keeps a state, which cannot."""
        if length < self.length:
            try:
                self.kept.crop(length - self.length)
            except (RuntimeError, AttributeError) as error:  # a window that has moved on, a state without a past
                raise ValueError("this cache cannot be rewound") from error
            self.length = length


def stop_ids(found: int | list[int] | None) -> frozenset[int]:
    """Return the ids that a generation config's ``eos_token_id`` names."""
    return frozenset([found] if isinstance(found, int) else found or [])
