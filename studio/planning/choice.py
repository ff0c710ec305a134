"""What a person can choose of a plan. Knows no layers."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import cached_property
from typing import Any, Literal, get_args

from studio.base.errors import SchemeError
from studio.quantization.methods import Method, parse_method
from studio.quantization.scheme import GROUP_SIZES, Mode, Scheme, parse_backup, parse_mode

MIN_RATIO = 0.05
MAX_PINS = 30
MAX_PATTERN = 200
"""Characters."""
GroupSizeFallback = Literal["error", "ignore", "adjust"]
"""What to do with a weight whose input channels the group does not divide: refuse the plan, keep it at 16 bits, or
take the largest power of two that divides them. NNCF's ``GroupSizeFallbackMode``."""
GROUP_SIZE_FALLBACKS: tuple[GroupSizeFallback, ...] = get_args(GroupSizeFallback)
Sensitivity = Literal["nncf", "damage"]
"""What decides which weights a ratio leaves to the backup: NNCF's score, from the weights alone, or the KL divergence
that rounding each is predicted to cost."""
SENSITIVITIES: tuple[Sensitivity, ...] = get_args(Sensitivity)


@dataclass(frozen=True)
class Pin:
    """Weights whose scheme the user decided: ``Pin("model.layers.0.*", Scheme(Mode.NF4, 64))``; None keeps 16 bits."""

    pattern: str
    """A name, or a pattern of the shell's kind: ``*`` for any characters, ``?`` for one."""
    scheme: Scheme | None

    def __post_init__(self) -> None:
        if not self.pattern or len(self.pattern) > MAX_PATTERN:
            raise SchemeError("bad_pattern", pattern=self.pattern[:40], limit=MAX_PATTERN)

    def __str__(self) -> str:
        return f"{self.pattern}={'none' if self.scheme is None else self.scheme}"

    @classmethod
    def parse(cls, words: str) -> "Pin":
        """Return the pin that ``PATTERN=SCHEME`` names, or that ``str`` wrote. Raises SchemeError."""
        pattern, equals, scheme = words.rpartition("=")
        if not equals:
            raise SchemeError("bad_pin", pin=words[:60])
        return cls(pattern.strip(), None if scheme.strip() == "none" else Scheme.parse(scheme.strip()))

    def takes(self, name: str) -> bool:
        """Return whether the weight called ``name`` is meant, with or without the ``.weight`` at its end."""
        return self._takes(name) is not None or self._takes(name.removesuffix(".weight")) is not None

    @cached_property
    def _takes(self) -> Callable[[str], object]:
        # A bracket is a bracket: names have none, and classes of characters are more than is promised.
        return re.compile(translate(self.pattern.replace("[", "[[]"))).match


@dataclass(frozen=True)
class Choice:
    """What the user set: ``Choice(Mode.INT4_ASYM, 64, 0.9, Mode.INT8_ASYM)``.

    The 8-bit integer modes are per output channel and take every weight, so group size and ratio do not apply to them.
    """

    mode: Mode = Mode.INT4_ASYM
    group_size: int = 64
    ratio: float = 1.0
    backup: Mode | None = Mode.INT8_ASYM
    group_size_fallback: GroupSizeFallback = "error"
    all_layers: bool = False
    """Whether embeddings and head follow the ratio too, instead of taking the backup."""
    pins: tuple[Pin, ...] = ()
    """The first that takes a weight decides."""
    method: Method = Method.NEAREST
    """How linear weights of less than 8 bits are rounded; all others are rounded to nearest."""
    sensitivity: Sensitivity = "nncf"

    def __post_init__(self) -> None:
        if not MIN_RATIO <= self.ratio <= 1:  # false for NaN too
            raise SchemeError("ratio_range", ratio=self.ratio, low=MIN_RATIO)
        if self.group_size not in GROUP_SIZES:
            sizes = ", ".join(str(size) for size in GROUP_SIZES)
            raise SchemeError("unknown_group_size", group_size=self.group_size, sizes=sizes)
        if self.group_size_fallback not in GROUP_SIZE_FALLBACKS:
            raise SchemeError(
                "unknown_misfit",
                misfit=str(self.group_size_fallback)[:40],
                misfits=", ".join(GROUP_SIZE_FALLBACKS),
            )
        if self.sensitivity not in SENSITIVITIES:
            given, valid = str(self.sensitivity)[:40], ", ".join(SENSITIVITIES)
            raise SchemeError("unknown_sensitivity", sensitivity=given, sensitivities=valid)
        if len(self.pins) > MAX_PINS:
            raise SchemeError("too_many_pins", limit=MAX_PINS)

    @classmethod
    def of(
        cls,
        mode: str,
        group_size: int,
        ratio: float,
        backup: str | None = None,
        group_size_fallback: str = "error",
        all_layers: bool = False,
        pins: Sequence[str] = (),
        method: str = Method.NEAREST,
        sensitivity: str | None = None,
    ) -> "Choice":
        """Return the choice these words name; without a backup it is NNCF's for the mode, without a sensitivity
        predicted damage where the model reads a text anyway, else NNCF's score.

        Raises SchemeError with the valid ones for an unknown word.
        """
        parsed = parse_mode(mode)
        second = parsed.default_backup if backup is None else parse_backup(backup)
        marks = tuple(Pin.parse(pin) for pin in pins)
        how = parse_method(method)
        by = sensitivity or ("damage" if how.needs_inputs else "nncf")
        words: dict[str, Any] = {
            "group_size_fallback": group_size_fallback,
            "sensitivity": by,
        }  # checked when it is made
        made = cls(parsed, group_size, ratio, second, all_layers=all_layers, pins=marks, method=how, **words)
        return made if made.is_mixed else replace(made, sensitivity="nncf")  # nothing goes by it

    @cached_property
    def primary(self) -> Scheme:
        return Scheme.of(self.mode, self.group_size)

    @cached_property
    def secondary(self) -> Scheme | None:
        """What layers outside the ratio take, None for 16 bits."""
        if not self.mode.is_mixable:
            return self.primary
        return None if self.backup is None else Scheme.of(self.backup, self.group_size)

    @property
    def is_mixed(self) -> bool:
        """Whether sensitivities decide which layer gets what."""
        return self.mode.is_mixable and self.ratio < 1 and self.primary != self.secondary
