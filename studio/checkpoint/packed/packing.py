"""What is known of a packed weight before a byte of it is read. Knows no format, no torch and no model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from studio.base.errors import CheckpointError, ModelError

Index = tuple[int | slice, ...]
"""Part of a tensor as it is stored: rows of ``(slice,)`` or ``(expert, slice)``, or, with a slice more, columns of
them; ``()`` for all of it."""
WORD_BITS = 32
WHOLE_CHANNEL = -1
MAX_GROUP = 1 << 20


@dataclass(frozen=True)
class Packing:
    """How the numbers of a weight [N, K] are packed, and in which tensors of the file.

    ``Packing("gptq", "GPTQ", 4, (576, 1536), 128, False, (("codes", "….qweight"), …), 1000)``.
    """

    format: str
    """Its name in ``formats.py``."""
    title: str
    """What to call the format: ``"GPTQ"``."""
    bits: int
    shape: tuple[int, int]
    group_size: int
    """Weights along K that share a scale; -1: all of a row."""
    is_symmetric: bool
    parts: tuple[tuple[str, str], ...]
    """Role -> the file's tensor: ``"codes"``, ``"scales"`` and, where there are any, ``"zeros"``, ``"offsets"`` and
    ``"order"``."""
    nbytes: int
    """All of these together."""
    zeros_are_one_less: bool = False
    """Whether a stored zero point is one less than what it stands for."""
    has_offset: bool = False
    """Whether a group has an offset in floats in place of a zero point."""

    @property
    def scheme(self) -> str:
        """The scheme in the studio's words: ``"int4_asym-g128"``."""
        group = "all" if self.group_size == WHOLE_CHANNEL else self.group_size
        kind = "affine" if self.has_offset else "sym" if self.is_symmetric else "asym"
        return f"int{self.bits}_{kind}-g{group}"

    @property
    def name(self) -> str:
        """What a tensor is said to be stored as: ``"GPTQ int4_asym-g128"``."""
        return f"{self.title} {self.scheme}"

    def words(self, count: int) -> int:
        """Return how many words ``count`` codes take, one after the other."""
        return -(-count * self.bits // WORD_BITS)

    def span(self, start: int, stop: int) -> tuple[slice, int]:
        """Return the words that hold codes ``start:stop``, and the place of the first of those codes in them.

        ``span(13, 20)`` of 4 bits is ``(slice(1, 3), 5)``; of 3 bits words begin with a code at every third.
        """
        step = 1 if WORD_BITS % self.bits == 0 else self.bits
        codes = step * WORD_BITS // self.bits
        first = start // codes
        return slice(first * step, self.words(stop)), start - first * codes


@dataclass(frozen=True)
class Settings:
    """A ``quantization_config`` whose values are looked at one by one: anyone may have written it."""

    title: str
    said: Mapping[str, Any]

    def whole(self, key: str, default: int | None, expected: str, among: "tuple[int, ...] | range") -> int:
        """Return a whole number that is in ``among``. Raises ModelError otherwise."""
        value = self.said.get(key, default)
        if type(value) is not int or value not in among:
            self.refuse(key, value, expected)
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return a yes or no. Raises ModelError for anything else."""
        value = self.said.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, value, "true, false")
        return value

    def word(self, key: str, default: str, among: tuple[str, ...]) -> str:
        """Return a word that is in ``among``, whatever its case. Raises ModelError otherwise."""
        value = self.said.get(key, default)
        if not isinstance(value, str) or value.lower() not in among:
            self.refuse(key, value, ", ".join(among))
        return value.lower()

    def group_size(self, default: int | None) -> int:
        """Return the group size: -1 or the number of weights. Raises ModelError for anything else."""
        if self.said.get("group_size", default) == WHOLE_CHANNEL:
            return WHOLE_CHANNEL
        return self.whole("group_size", default, f"-1, 1 … {MAX_GROUP}", range(1, MAX_GROUP + 1))

    def refuse(self, key: str, value: object, expected: str) -> NoReturn:
        """Raise ModelError for a setting that is none of those that can be read."""
        shown = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
        raise ModelError("packed_setting", method=self.title, key=key, value=shown[:60], expected=expected)


def mismatch(title: str, tensor: str, reason: str) -> CheckpointError:
    """Return the error for tensors of one weight that do not fit each other."""
    return CheckpointError("packed_mismatch", method=title, tensor=tensor[:120], reason=reason[:120])
