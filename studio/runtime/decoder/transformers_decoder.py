"""A model whose steps are transformers' own modules: any architecture, at the price of dispatching hundreds of small
operations a token. Knows no family.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from studio.runtime.decoder.carried_state import Places, carried_bytes, memory_of
from studio.runtime.decoder.interface import Backend, Decoder, Reason
from studio.runtime.decoder.kv_size import key_values
from studio.runtime.decoder.lengths import forget_lengths, lengths_of
from studio.runtime.model import passed_by, slow_schemes, weight_bytes


class GeneralDecoder(Decoder["GeneralCache"]):
    """A transformers model as it is, original or on packed weights."""

    backend = Backend.GENERAL

    def __init__(self, model: nn.Module, reason: Reason = "") -> None:
        self.model, self.reason = model, reason
        self.weight_bytes = weight_bytes(model)
        self.is_slow = slow_schemes(model)
        self.vocabulary = int(getattr(model.config, "vocab_size", None) or 1 << 30)
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)
        stops = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        self.stop_ids = frozenset([stops] if isinstance(stops, int) else stops or ())
        self._memory = memory_of(model)
        self._lengths = lengths_of(model)
        self._places = Places(model)
        self._turn = Lock()
        """Modules change with what they read, some in every reading and some in their first; and two readings at once
        would only take turns on the same cores."""

    @property
    def step_bytes(self) -> int:
        return self.weight_bytes - passed_by(self.model)

    def kv_bytes(self, positions: int, bits: int = 16) -> int:
        known = key_values(self.model.config)
        return 0 if known is None else known.nbytes(positions)

    def begin(self, positions: int, bits: int = 16) -> "GeneralCache":
        return GeneralCache(self._empty(), positions)

    def step(self, cache: "GeneralCache", tokens: Sequence[int]) -> Tensor:
        return self._logits(cache, tokens, 1)[-1]

    def forward_all(self, cache: "GeneralCache", tokens: Sequence[int]) -> Tensor:
        return self._logits(cache, tokens, 0)

    def _empty(self) -> Any:
        """Return what the model carries at the beginning of a text."""
        from transformers import DynamicCache

        is_given = self._memory.name is not None and not self._memory.is_own
        return DynamicCache(config=self.model.config) if is_given else None

    def _logits(self, cache: "GeneralCache", tokens: Sequence[int], keep: int) -> Tensor:
        """Return the logits [T, V] of the last tokens, at least those of the last ``keep``; 0 is all."""
        reread = self._memory.name is None or self._is_outdated(cache, len(tokens))
        given = [*cache.ids, *tokens] if reread else list(tokens)
        if reread:
            cache.kept, cache.states, cache.length = self._empty(), [], 0
        ones = self._memory.one_by_one and cache.length
        pieces = [[token] for token in given] if ones else [given]
        rows = torch.cat([self._piece(cache, piece, keep) for piece in pieces])
        cache.ids += tokens
        cache.is_rewound = False
        return rows[-len(tokens) :]

    def _is_outdated(self, cache: "GeneralCache", count: int) -> bool:
        """Return whether what is carried was rotated for another length than transformers would have it.

        It reads a prompt at once, all of it for its length, and each token of an answer for the length by then; where
        a rotation switches, everything is read again.
        """
        if not self._lengths or not cache.length:
            return False
        before, after = cache.rotated, cache.length + count
        if self._lengths.switched(before) != self._lengths.switched(after):
            return True
        return self._lengths.of(before) != self._lengths.of(after) and (count > 1 or cache.is_rewound)

    @torch.inference_mode()
    def _piece(self, cache: "GeneralCache", tokens: Sequence[int], keep: int) -> Tensor:
        memory, end = self._memory, cache.length + len(tokens)
        more: dict[str, Any] = {"use_cache": memory.name is not None, "logits_to_keep": keep}
        if memory.name is not None:
            more[memory.name] = cache.kept
        if memory.takes_positions:
            more["position_ids"] = torch.arange(cache.length, end, dtype=torch.int64, device="cpu").unsqueeze(0)
        ids = torch.tensor([list(tokens)], dtype=torch.int64, device="cpu")
        with self._turn:
            if self._lengths:
                forget_lengths(self.model)
            self._places.put(cache.states)
            output = self.model(ids, **more)
            cache.states = self._places.take()
        if memory.is_own and memory.name is not None:
            cache.kept = getattr(output, memory.name)
        cache.length = cache.rotated = end
        return output.logits[0].float()  # type: ignore[no-any-return]


class GeneralCache:
    """What the model carries, which grows with the text."""

    bits = 16

    def __init__(self, kept: Any, positions: int) -> None:
        self.kept = kept
        self.states: list[Any] = []
        """What the model would keep in its modules, none before the first token."""
        self.ids: list[int] = []
        """The text so far: some models read it again."""
        self.capacity = positions
        self.length = 0
        self.rotated = 0
        """The length that the frequencies of the last reading were for."""
        self.is_rewound = False

    @property
    def room(self) -> int:
        return self.capacity - self.length

    @property
    def nbytes(self) -> int:
        return carried_bytes((self.kept, self.states))

    def rewind(self, length: int) -> None:
        """Forget everything from a position on. Raises ValueError for a model that keeps a state, which cannot."""
        if length < self.length:
            if self.states:
                raise ValueError("this cache cannot be rewound")
            try:
                if self.kept is not None:
                    self.kept.crop(length - self.length)
            except (RuntimeError, AttributeError) as error:  # a window that has moved on, a state without a past
                raise ValueError("this cache cannot be rewound") from error
            del self.ids[length:]
            self.length, self.is_rewound = length, True
