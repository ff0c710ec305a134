"""How large a model may be: bytes, a share of the original, bits a weight, what one of llama.cpp's mixes takes, or what
a machine's memory has room for.

Says how many bytes that is for a model's layers. Knows neither losses nor plans, and nothing of a model's context:
``settled.py`` finds what is left beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from studio.base.errors import SchemeError
from studio.checkpoint.layers import Layer
from studio.planning.amount import BITS, SHARE, Amount
from studio.planning.mixes import MIXES, NONE
from studio.planning.palettes import Palette
from studio.planning.room import Room


@dataclass(frozen=True)
class Budget:
    """``Budget.parse("5GB")``, ``"60%"``, ``"4.5bpw"``, ``"q4_k_m"``, ``"fits:8GB@8k"``."""

    words: str
    """As it is written, one way each."""
    left: int | None = field(default=None, compare=False)
    """Bytes that a machine has left for weights, once a model says what its context takes; None of all else."""

    def __str__(self) -> str:
        return self.words

    @classmethod
    def parse(cls, words: str) -> "Budget | None":
        """Return the budget that is meant, None for ``"none"`` and for nothing. Raises SchemeError for other words."""
        said = words.strip().lower()
        if said in ("", NONE):
            return None
        if said in MIXES:
            return cls(said)
        found = Room.parse(said) or Amount.parse(said)
        if found is None:
            raise SchemeError("bad_budget", budget=words.strip()[:40], mixes=", ".join(MIXES))
        return cls(str(found))

    @property
    def room(self) -> Room | None:
        """The machine and the context that are meant; None where a size is."""
        return Room.parse(self.words)

    def limit(self, layers: Sequence[Layer], palette: Palette) -> int:
        """Return the bytes that all tensors of a model may take together, as the palette's target holds them.

        Raises ValueError for a machine's memory of which nobody has said yet what is left.
        """
        if self.words in MIXES:
            taken = MIXES[self.words].schemes(layers)
            return sum(palette.nbytes(layer, taken.get(layer.name)) for layer in layers)
        if self.left is not None:
            return self.left
        amount = Amount.parse(self.words)
        if amount is None:
            raise ValueError(f"{self.words} is not settled for a model")
        if amount.unit == SHARE:
            return int(amount.value * sum(layer.original_bytes for layer in layers) / 100)
        if amount.unit == BITS:
            return int(amount.value * sum(layer.numel for layer in layers) / 8)
        return amount.nbytes or 0
