"""What a person can choose of a plan: the one place that lists it. Knows no layers.

The terminal's options, the page's panel, reports, recipes and the command that makes a copy again follow from the
fields of :class:`Choice`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from fnmatch import translate
from functools import cached_property
from typing import Annotated, Any, Literal, get_args, get_type_hints

from studio.base.errors import SchemeError
from studio.planning.budget import Budget
from studio.planning.mixes import MIXES, NONE
from studio.planning.option import Option
from studio.planning.palettes import DEFAULT, PALETTES
from studio.quantization.methods import Method, parse_method
from studio.quantization.scheme import GROUP_SIZES, Mode, Scheme, backup_modes, parse_backup, parse_mode

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
        object.__setattr__(self, "pattern", self.pattern.strip())  # so that what ``str`` writes is read as the same
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
        return cls(pattern, None if scheme.strip() == "none" else Scheme.parse(scheme.strip()))

    def takes(self, name: str) -> bool:
        """Return whether the weight called ``name`` is meant, with or without the ``.weight`` at its end."""
        return self._takes(name) is not None or self._takes(name.removesuffix(".weight")) is not None

    @cached_property
    def _takes(self) -> Callable[[str], object]:
        # A bracket is a bracket: names have none, and classes of characters are more than is promised.
        return re.compile(translate(self.pattern.replace("[", "[[]"))).match


def _always(choice: "Choice") -> bool:
    return True


def _is_mixable(choice: "Choice") -> bool:
    return choice.mode.is_mixable


def _has_budget(choice: "Choice") -> bool:
    return choice.budget is not None


def _has_groups(choice: "Choice") -> bool:
    """Return whether the group size makes a difference: to the mode, or to the backup."""
    modes = (choice.mode, choice.backup) if choice.mode.is_mixable else (choice.mode,)
    return any(mode is not None and mode.is_grouped for mode in modes)


def _parse_pins(words: Iterable[str]) -> tuple[Pin, ...]:
    return tuple(Pin.parse(each) for each in words)


@dataclass(frozen=True)
class Choice:
    """What the user set: ``Choice(Mode.INT4_ASYM, 64, 0.9, Mode.INT8_ASYM)``.

    The 8-bit integer modes are per output channel and take every weight, so group size and ratio do not apply to them.
    The fields stand in the order of the terminal's options.
    """

    mode: Annotated[Mode, Option(parse_mode, str, among=tuple(Mode), is_told=_always)] = Mode.INT4_ASYM
    group_size: Annotated[
        int,
        Option(
            int,
            int,
            unsaid=lambda choice: choice.group_size,  # or one that fits the model, which the session knows
            applies=_has_groups,
            is_told=_has_groups,
        ),
    ] = 64
    ratio: Annotated[float, Option(float, float, applies=_is_mixable, is_told=_is_mixable)] = 1.0
    backup: Annotated[
        Mode | None,
        Option(
            parse_backup,
            lambda backup: "none" if backup is None else backup.value,
            among=tuple(backup_modes()),
            unsaid=lambda choice: choice.mode.default_backup,
            applies=_is_mixable,
            is_told=_is_mixable,
        ),
    ] = Mode.INT8_ASYM
    group_size_fallback: Annotated[
        GroupSizeFallback,
        Option(str, str, among=GROUP_SIZE_FALLBACKS, key="misfit", flags=("--misfit", "--group-size-fallback")),
    ] = "error"
    all_layers: Annotated[bool, Option(bool, bool, applies=_is_mixable)] = False
    """Whether embeddings and head follow the ratio too, instead of taking the backup."""
    share_fused: Annotated[bool, Option(bool, bool, applies=lambda choice: choice.mix == NONE, can_be_denied=True)] = (
        False
    )
    """Whether what vLLM makes one module of (q, k and v; gate and up; a block's experts) has one scheme."""
    sensitivity: Annotated[
        Sensitivity,
        Option(
            str,
            str,
            among=SENSITIVITIES,
            unsaid=lambda choice: "damage" if choice.method.needs_inputs else "nncf",
            applies=_is_mixable,
            is_told=lambda choice: choice.is_mixed,
        ),
    ] = "nncf"
    """NNCF's score wherever no ranking is needed."""
    pins: Annotated[tuple[Pin, ...], Option(_parse_pins, lambda pins: [*map(str, pins)], flags=("--pin",))] = ()
    """The first that takes a weight decides."""
    method: Annotated[
        Method,
        Option(parse_method, str, among=("best", *Method), applies=lambda choice: choice.mode.bits < 8),
    ] = Method.NEAREST
    """How linear weights of less than 8 bits are rounded; all others are rounded to nearest."""
    mix: Annotated[str, Option(str.lower, str, among=(NONE, *MIXES))] = NONE
    """One of llama.cpp's mixes, which decides what each weight takes in place of mode and ratio; pins come first."""
    budget: Annotated[
        Budget | None,
        Option(Budget.parse, lambda budget: NONE if budget is None else str(budget), is_told=_has_budget),
    ] = None
    """How large the model may be: each weight then takes what makes the predicted loss least; pins come first."""
    target: Annotated[
        str,
        Option(str.lower, str, among=tuple(PALETTES), flags=("--to",), applies=_has_budget, is_told=_has_budget),
    ] = DEFAULT
    """The export target whose schemes a budget is spent on."""

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
        if self.mix not in (NONE, *MIXES):
            raise SchemeError("unknown_mix", mix=str(self.mix)[:40], mixes=", ".join((NONE, *MIXES)))
        if self.target not in PALETTES:
            raise SchemeError("unknown_target", target=str(self.target)[:40], targets=", ".join(PALETTES))
        if len(self.pins) > MAX_PINS:
            raise SchemeError("too_many_pins", limit=MAX_PINS)
        if self.budget is not None:
            for name, is_said in (("ratio", self.ratio != 1), ("mix", self.mix != NONE)):
                if is_said:
                    raise SchemeError("budget_and_other", budget=str(self.budget), other=name)
            object.__setattr__(self, "sensitivity", "damage")
        elif not self.is_mixed:
            object.__setattr__(self, "sensitivity", "nncf")

    @classmethod
    def of(
        cls,
        mode: str | None = None,
        group_size: int | None = None,
        ratio: float | None = None,
        backup: str | None = None,
        **more: Any,
    ) -> "Choice":
        """Return the choice that words name, each by its field's name, as :meth:`words` gives them.

        What is left out, or None, is as a terminal has it: without a backup it is NNCF's for the mode, without a
        sensitivity predicted damage where the model reads a text anyway, else NNCF's score. Raises SchemeError with the
        valid ones for an unknown word, TypeError for a name that is no field's.
        """
        said = {"mode": mode, "group_size": group_size, "ratio": ratio, "backup": backup, **more}
        if unknown := said.keys() - OPTIONS.keys():
            raise TypeError(f"a choice has no {', '.join(sorted(unknown))}")
        made = cls(**{name: OPTIONS[name].read(word) for name, word in said.items() if word is not None})
        unsaid = {name: each.unsaid for name, each in OPTIONS.items() if said.get(name) is None}
        return replace(made, **{name: find(made) for name, find in unsaid.items() if find is not None})

    def words(self) -> dict[str, Any]:
        """Return the word for each field, by its name: ``Choice.of(**choice.words()) == choice``."""
        return {name: each.write(getattr(self, name)) for name, each in OPTIONS.items()}

    def facts(self) -> dict[str, Any]:
        """Return the words for what is carried out: the group size is the mode's own, where it has its own."""
        return self.words() | {"group_size": self.primary.group_size}

    def arguments(self, *, repeated: bool) -> list[str]:
        """Return what the terminal is told to choose the same: by options given once, or by those given repeatedly."""
        given = ((each, getattr(self, name)) for name, each in OPTIONS.items() if each.is_repeated is repeated)
        return [argument for each, value in given for argument in each.arguments(self, value)]

    @property
    def title(self) -> str:
        """What it is called: by its budget, by its mix, in llama.cpp's spelling, else by its mode."""
        if self.budget is not None:
            return f"{self.target}-{self.budget}"
        return self.mode.value if self.mix == NONE else self.mix.upper()

    @property
    def label(self) -> str:
        """What names a copy of it: its budget or its mix, else the scheme of most layers."""
        return str(self.primary) if self.budget is None and self.mix == NONE else self.title

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
    def is_calibrated(self) -> bool:
        """Whether the model reads a text first: the method wants its inputs, and takes weights of so few bits."""
        return self.method.needs_inputs and self.mode.bits < 8

    @property
    def is_mixed(self) -> bool:
        """Whether sensitivities decide which layer gets what."""
        is_shared = self.ratio < 1 and self.primary != self.secondary
        return self.budget is not None or (self.mode.is_mixable and is_shared and self.mix == NONE)


def _options() -> dict[str, Option]:
    """Return the option of every field, with what the field says of it."""
    hints = get_type_hints(Choice, include_extras=True)
    return {each.name: hints[each.name].__metadata__[0].of(each.name, each.default) for each in fields(Choice)}


OPTIONS = _options()
"""Every field's option by the field's name."""
