"""Where two answers to the same conversation part. Knows tokens and logits, neither models nor pages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from studio.base.errors import ProcessError
from studio.chat.answer import Look, Reply


@dataclass(frozen=True)
class Divergence:
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

    looks: Sequence[Callable[[int, Sequence[int]], Look]]
    """Of each column: what the model said at a place in its answer, one of the last two, and gave these tokens."""
    divergence: Divergence | None = None
    is_lost: bool = False
    """Whether a model cannot be looked at any more: its worker has ended."""
    _heard: list[int] = field(default_factory=lambda: [0, 0])
    _said: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    """The tokens of one column that the other has yet to answer."""
    _places: tuple[list[tuple[int, int]], list[tuple[int, int]]] = field(default_factory=lambda: ([], []))
    _length: list[int] = field(default_factory=lambda: [0, 0])

    def hear(self, column: int, reply: Reply) -> None:
        """Take in a column's newest token; one that was heard already changes nothing."""
        if self.divergence is not None or self.is_lost or reply.newest is None or reply.tokens == self._heard[column]:
            return
        self._heard[column] = reply.tokens
        self._said[column].append(reply.newest.token)
        self._places[column].append((self._length[column], len(reply.text)))
        self._length[column] = len(reply.text)
        while all(self._said):
            pair = (self._said[0].pop(0), self._said[1].pop(0))
            places = (self._places[0].pop(0), self._places[1].pop(0))
            if pair[0] != pair[1]:
                try:
                    self.divergence = self._parting(pair, places)
                except (ProcessError, ValueError):
                    self.is_lost = True
                return

    def _parting(self, pair: tuple[int, int], places: tuple[tuple[int, int], tuple[int, int]]) -> Divergence:
        index = min(self._heard) - 1
        first, second = (look(index, pair) for look in self.looks)
        given = tuple((look.probabilities[0], look.probabilities[1]) for look in (first, second))
        return Divergence(index, (first.word, second.word), places, (given[0], given[1]))
