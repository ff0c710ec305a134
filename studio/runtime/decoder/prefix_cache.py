"""What a model has read of a conversation, so that the next turn goes on from there. Knows no words and no sessions."""

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from studio.runtime.decoder.interface import MOST_TOKENS, Backend, Cache, Decoder

SPARE = 2
"""A cache is begun with room for so many times the text, so that the next turns fit too: room costs nothing yet."""
RECENT = 2
"""Tokens that are kept: answers side by side are never further apart than a token."""


class PrefixCache:
    """A cache and the tokens that are in it: empty at first, and whenever it was of no use."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Give the cache back."""
        self.cache: Cache | None = None
        self.ids: list[int] = []
        self._decoder: weakref.ref[Decoder[Any]] | None = None
        self.recent: deque[tuple[int, Any]] = deque(maxlen=RECENT)
        """The last tokens of an answer by their place in it, as whoever reads on keeps them."""

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return 0 if self.cache is None else self.cache.nbytes

    def begin(self, decoder: Decoder[Any], ids: Sequence[int], positions: int, bits: int) -> int:
        """Make room for ``positions`` tokens that begin with ``ids``; return how many of these are read already.

        At least one is not, for its logits are wanted. Compiled code gives a token the same whatever comes with it; the
        other ways round differently in pieces of another length, so that there the pieces are kept: what is read again
        gives the same answer again.
        """
        shared = next((i for i, (old, new) in enumerate(zip(self.ids, ids, strict=False)) if old != new), None)
        shared = min(len(self.ids) if shared is None else shared, len(ids) - 1)
        if decoder.backend is not Backend.NATIVE:
            shared -= shared % MOST_TOKENS
        cache, is_same = self.cache, self._decoder is not None and self._decoder() is decoder
        if cache is not None and is_same and cache.bits == bits and cache.length + cache.room >= positions and shared:
            try:
                cache.rewind(shared)
                self.ids = self.ids[:shared]
                return shared
            except ValueError:  # a model that keeps a state
                pass
        self.forget()
        self.cache = decoder.begin(min(SPARE * positions, max(positions, decoder.context)), bits)
        self._decoder = weakref.ref(decoder)
        return 0

    def step(self, decoder: Decoder[Any], tokens: Sequence[int]) -> Tensor:
        """Read at most 128 tokens more and return the logits after the last, fp32 [V]."""
        return self._joined(tokens, decoder.step)

    def forward_all(self, decoder: Decoder[Any], tokens: Sequence[int]) -> Tensor:
        """The same with the logits after each, fp32 [T, V]."""
        return self._joined(tokens, decoder.forward_all)

    def _joined(self, tokens: Sequence[int], read: Any) -> Tensor:
        cache, self.cache = self.cache, None  # a step that fails leaves a cache that nobody should go on from
        logits: Tensor = read(cache, tokens)
        self.cache = cache
        self.ids += tokens
        return logits
