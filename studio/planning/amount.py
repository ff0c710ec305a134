"""A number with its unit as a person writes it: ``5GB``, ``60%``, ``4.5bpw``. Knows no model."""

import re
from dataclasses import dataclass
from fractions import Fraction

UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
SHARE, BITS = "%", "bpw"
"""What is of a model: of its original bytes, and for each of its weights."""
WRITTEN = {unit: unit.upper().replace("I", "i") for unit in UNITS} | {SHARE: SHARE, BITS: BITS}
"""Each unit as it is written: ``GiB``."""
FORM = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,6})?)\s*(?P<unit>[a-z]{1,3}|%)", re.ASCII)


@dataclass(frozen=True)
class Amount:
    """``Amount.parse("5 gb")`` is written ``5GB``."""

    number: str
    """Without zeros that say nothing."""
    unit: str
    """In small letters."""

    def __str__(self) -> str:
        return f"{self.number}{WRITTEN[self.unit]}"

    @classmethod
    def parse(cls, words: str) -> "Amount | None":
        """Return the amount that is meant; None for other words, and for nothing of a unit."""
        found = FORM.fullmatch(words.strip().lower())
        if found is None or found["unit"] not in WRITTEN or not Fraction(found["number"]):
            return None
        number = found["number"]
        number = number.rstrip("0").rstrip(".") if "." in number else number
        return cls(number.lstrip("0") if not number.startswith("0.") else number, found["unit"])

    @property
    def value(self) -> Fraction:
        return Fraction(self.number)

    @property
    def nbytes(self) -> int | None:
        """Bytes; None where only a model says how many these are."""
        return int(self.value * UNITS[self.unit]) if self.unit in UNITS else None
