"""Where two answers to the same conversation part. Knows tokens and logits, neither models nor pages."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.chat import Picked, Reply


@dataclass(frozen=True)
class Parting:
    """The first token at which two answers differ: until there both models have read the same."""

    index: int
    """Of the token in both answers."""
    words: tuple[str, str]
    """Each column's token as text; empty for one that ends the answer."""
    places: tuple[tuple[int, int], tuple[int, int]]
    """Where each stands in its answer: first character and the one behind the last."""
    probabilities: tuple[tuple[float, float], tuple[float, float]]
    """``[i][j]``: what model i gives the token of column j, at temperature 1."""


@dataclass
class Comparison:
    """Hears two answers as they grow, in whichever order, and finds out where they part."""

    tokenizer: Any
    stops: Sequence[frozenset[int]]
    found: Parting | None = None
    _heard: list[int] = field(default_factory=lambda: [0, 0])
    _places: tuple[list[tuple[int, int]], list[tuple[int, int]]] = field(default_factory=lambda: ([], []))
    _picked: tuple[list[Picked], list[Picked]] = field(default_factory=lambda: ([], []))
    """What one column said and the other has yet to answer: a few tokens, for they go on by turns."""
    _length: list[int] = field(default_factory=lambda: [0, 0])

    def hear(self, column: int, reply: Reply) -> None:
        """Take in a column's newest token; one that was heard already changes nothing."""
        if self.found is not None or reply.newest is None or reply.tokens == self._heard[column]:
            return
        self._heard[column] = reply.tokens
        self._picked[column].append(reply.newest)
        self._places[column].append((self._length[column], len(reply.text)))
        self._length[column] = len(reply.text)
        while self.found is None and all(self._picked):
            pair = (self._picked[0].pop(0), self._picked[1].pop(0))
            places = (self._places[0].pop(0), self._places[1].pop(0))
            if pair[0].token != pair[1].token:
                self.found = self._parting(pair, places)

    def _parting(self, pair: tuple[Picked, Picked], places: tuple[tuple[int, int], tuple[int, int]]) -> Parting:
        tokens = [picked.token for picked in pair]
        first, second = (picked.logits.softmax(-1)[tokens].tolist() for picked in pair)
        words = tuple(
            "" if token in stops else str(self.tokenizer.decode([token]))
            for token, stops in zip(tokens, self.stops, strict=True)
        )
        index = min(self._heard) - 1
        return Parting(index, (words[0], words[1]), places, ((first[0], first[1]), (second[0], second[1])))
