"""How large a model may be: bytes, a share of the original, bits a weight, or what one of llama.cpp's mixes takes.

Says how many bytes that is for a model's layers. Knows neither losses nor plans.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from studio.base.errors import SchemeError
from studio.checkpoint.layers import Layer
from studio.planning.mixes import MIXES, NONE
from studio.planning.palettes import Palette

UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
WRITTEN = {unit: unit.upper().replace("I", "i") for unit in UNITS} | {"%": "%", "bpw": "bpw"}
"""Each unit as it is written: ``GiB``."""
FORM = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,6})?)\s*(?P<unit>[a-z]{1,3}|%)", re.ASCII)


@dataclass(frozen=True)
class Budget:
    """``Budget.parse("5GB")``, ``"60%"``, ``"4.5bpw"``, ``"q4_k_m"``."""

    words: str
    """As it is written, one way each."""

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
        found = FORM.fullmatch(said)
        if found is None or found["unit"] not in WRITTEN or not Fraction(found["number"]):
            raise SchemeError("bad_budget", budget=words.strip()[:40], mixes=", ".join(MIXES))
        number = found["number"]
        number = number.rstrip("0").rstrip(".") if "." in number else number
        return cls(f"{number.lstrip('0') if not number.startswith('0.') else number}{WRITTEN[found['unit']]}")

    def limit(self, layers: Sequence[Layer], palette: Palette) -> int:
        """Return the bytes that all tensors of a model may take together, as the palette's target holds them."""
        if self.words in MIXES:
            taken = MIXES[self.words].schemes(layers)
            return sum(palette.nbytes(layer, taken.get(layer.name)) for layer in layers)
        found = FORM.fullmatch(self.words.lower())
        assert found is not None  # as parse made it
        number, unit = Fraction(found["number"]), found["unit"]
        if unit == "%":
            return int(number * sum(layer.original_bytes for layer in layers) / 100)
        if unit == "bpw":
            return int(number * sum(layer.numel for layer in layers) / 8)
        return int(number * UNITS[unit])
