"""The vocabulary of number formats: Mode, Scheme, and the exact bytes of a tensor. Knows nothing of tensors' values.

A weight is a matrix [N, K]: N output channels, K input channels. Groups run along K. Names and formats are those of
NNCF 3.4 (``nncf.CompressWeightsMode``); scales are stored as fp16, as OpenVINO does.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from studio.errors import SchemeError

WHOLE_CHANNEL = -1
"""The group size that means one scale per output channel."""

GROUP_SIZES = (WHOLE_CHANNEL, 32, 64, 128, 256)
"""What a user can choose from."""


class Mode(StrEnum):
    """The number format of a compressed weight, named as NNCF names it."""

    INT8_SYM = "int8_sym"
    INT8_ASYM = "int8_asym"
    INT4_SYM = "int4_sym"
    INT4_ASYM = "int4_asym"
    NF4 = "nf4"

    @property
    def bits(self) -> int:
        return 8 if self in (Mode.INT8_SYM, Mode.INT8_ASYM) else 4

    @property
    def has_zero_point(self) -> bool:
        return self in (Mode.INT8_ASYM, Mode.INT4_ASYM)

    @property
    def is_grouped(self) -> bool:
        """Whether the mode takes a group size; the 8-bit ones are per output channel."""
        return self.bits == 4


BACKUP_MODES: tuple[Mode | None, ...] = (Mode.INT8_ASYM, Mode.INT8_SYM, None)
"""What sensitive layers, embeddings and the head can take; None leaves them at 16 bits."""


@dataclass(frozen=True)
class Part:
    """One stored array of a packed tensor: ``Part("scale", "F16", (576, 9))``; dtypes as safetensors names them."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * (2 if self.dtype == "F16" else 1)


@dataclass(frozen=True)
class Scheme:
    """What one tensor becomes: ``Scheme(Mode.INT4_ASYM, 64)``, written ``int4_asym-g64``."""

    mode: Mode
    group_size: int = WHOLE_CHANNEL

    def __post_init__(self) -> None:
        if self.group_size != WHOLE_CHANNEL and (self.group_size < 2 or not self.mode.is_grouped):
            raise SchemeError("group_size_of_mode", mode=self.mode.value, group_size=self.group_size)

    def __str__(self) -> str:
        if not self.mode.is_grouped:
            return self.mode.value
        return f"{self.mode.value}-g{self.group_size if self.group_size > 0 else 'all'}"

    @classmethod
    def parse(cls, name: str) -> "Scheme":
        """Return the scheme whose ``str`` is ``name``. Raises SchemeError for anything else."""
        mode, _, group = name.partition("-g")
        try:
            size = WHOLE_CHANNEL if group in ("", "all") else int(group)
        except ValueError as error:
            raise SchemeError("unknown_scheme", name=name[:40]) from error
        scheme = cls(parse_mode(mode), size)
        if str(scheme) != name:
            raise SchemeError("unknown_scheme", name=name[:40])
        return scheme

    def fits(self, in_features: int) -> bool:
        """Return whether the groups divide the input channels exactly."""
        return self.group_size == WHOLE_CHANNEL or in_features % self.group_size == 0

    def groups(self, in_features: int) -> int:
        """Return how many groups a row of ``in_features`` has. Raises SchemeError when they do not divide it."""
        if not self.fits(in_features):
            raise SchemeError("group_size_does_not_divide", group_size=self.group_size, width=in_features)
        return 1 if self.group_size == WHOLE_CHANNEL else in_features // self.group_size

    def parts(self, shape: tuple[int, int]) -> tuple[Part, ...]:
        """Return the arrays that store a [N, K] weight, in the order of the file.

        8 bits: ``codes`` [N, K]. 4 bits: ``codes`` uint8 [N, ceil(K/2)], low half first. ``scale`` fp16 [N, G].
        ``zero_point``: uint8 [N, 1] at 8 bits, two to a byte [ceil(N*G/2)] at 4.
        """
        rows, width = shape
        groups = self.groups(width)
        codes = Part("codes", "U8", (rows, -(-width // 2)))
        if self.mode.bits == 8:
            codes = Part("codes", "U8" if self.mode.has_zero_point else "I8", (rows, width))
        parts = [codes, Part("scale", "F16", (rows, groups))]
        if self.mode.has_zero_point:
            zero_points = (rows, 1) if self.mode.bits == 8 else (-(-rows * groups // 2),)
            parts.append(Part("zero_point", "U8", zero_points))
        return tuple(parts)

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Return the exact bytes of a [N, K] weight: codes, scales and zero points."""
        return sum(part.nbytes for part in self.parts(shape))


def parse_mode(name: str) -> Mode:
    """Return the mode of this name. Raises SchemeError with the list of valid ones."""
    try:
        return Mode(name)
    except ValueError as error:
        raise SchemeError("unknown_mode", mode=name[:40], modes=", ".join(Mode)) from error


def parse_backup(name: str) -> Mode | None:
    """Return the backup mode of this name, None for ``"none"``. Raises SchemeError with the list of valid ones."""
    names = {"none" if mode is None else mode.value: mode for mode in BACKUP_MODES}
    if name not in names:
        raise SchemeError("unknown_backup", backup=name[:40], backups=", ".join(names))
    return names[name]


def fitting_group_sizes(widths: Iterable[int]) -> tuple[int, ...]:
    """Return the group sizes that divide every one of ``widths`` (the input channels of the layers to compress)."""
    widths = set(widths)
    return tuple(g for g in GROUP_SIZES if g == WHOLE_CHANNEL or all(width % g == 0 for width in widths))
