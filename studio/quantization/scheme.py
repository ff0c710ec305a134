"""The vocabulary of number formats: Mode, Scheme, and the exact bytes of a tensor. Knows nothing of tensors' values.

A weight is a matrix [N, K]: N output channels, K input channels. Groups run along K. Names and formats are those of
NNCF 3.4 (``nncf.CompressWeightsMode``); scales are stored as OpenVINO does, mostly as fp16.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property

from studio.base.dtypes import DTYPE_BYTES
from studio.base.errors import SchemeError

WHOLE_CHANNEL = -1
"""The group size that means one scale per output channel."""

GROUP_SIZES = (WHOLE_CHANNEL, 32, 64, 128, 256)
"""What a user can choose from."""


class Mode(StrEnum):
    """The number format of a compressed weight, named as NNCF names it; what each is stands in :data:`FORMATS`."""

    INT8_SYM = "int8_sym"
    INT8_ASYM = "int8_asym"
    INT4_SYM = "int4_sym"
    INT4_ASYM = "int4_asym"
    INT3_SYM = "int3_sym"
    INT2_SYM = "int2_sym"
    NF4 = "nf4"
    FP4 = "fp4"
    MXFP4 = "mxfp4"
    NVFP4 = "nvfp4"
    FP8_E4M3 = "fp8_e4m3"
    MXFP8_E4M3 = "mxfp8_e4m3"
    CB4 = "cb4"
    CB4_LEARNED = "cb4_learned"
    """Ours: sixteen levels found for each tensor."""
    INT5_SYM = "int5_sym"
    """Ours: int4_sym's grid with twice the steps; in groups of 32 it is llama.cpp's Q5_0."""

    @property
    def stored_as(self) -> "Format":
        return FORMATS[self]

    @property
    def bits(self) -> int:
        return self.stored_as.bits

    @property
    def has_zero_point(self) -> bool:
        return self.stored_as.has_zero_point

    @property
    def is_grouped(self) -> bool:
        """Whether a group size can be chosen; the 8-bit integers are per output channel, MX and NV formats fixed."""
        return len(self.stored_as.group_sizes) > 1

    @property
    def needs_whole(self) -> bool:
        """Whether a tensor is looked at as a whole before its first row is rounded: its rows share some numbers."""
        return self.stored_as.tensor_params is not None

    @property
    def is_mixable(self) -> bool:
        """Whether a ratio applies: NNCF's 8-bit integers take every weight."""
        return self not in (Mode.INT8_SYM, Mode.INT8_ASYM)

    @property
    def default_backup(self) -> "Mode":
        """NNCF's: the FP4 and FP8 formats back each other."""
        if self in (Mode.MXFP4, Mode.MXFP8_E4M3):
            return Mode.MXFP8_E4M3
        return Mode.FP8_E4M3 if self in (Mode.FP4, Mode.FP8_E4M3) else Mode.INT8_ASYM


@dataclass(frozen=True)
class Format:
    """How a mode stores its numbers: ``Format(bits=4, has_zero_point=True)``; dtypes as safetensors names them."""

    bits: int
    """Of one code."""
    group_sizes: tuple[int, ...] = GROUP_SIZES
    """Those a user can choose; a single one is fixed."""
    has_zero_point: bool = False
    code_dtype: str = "U8"
    """Of an 8-bit code; smaller codes are packed into bytes."""
    scale_dtype: str = "F16"
    tensor_params: tuple[str, str, int] | None = None
    """What a whole tensor shares: name, dtype, how many numbers."""


FORMATS = {
    Mode.INT8_SYM: Format(8, (WHOLE_CHANNEL,), code_dtype="I8"),
    Mode.INT8_ASYM: Format(8, (WHOLE_CHANNEL,), has_zero_point=True),
    Mode.INT4_SYM: Format(4),
    Mode.INT4_ASYM: Format(4, has_zero_point=True),
    Mode.INT3_SYM: Format(3),
    Mode.INT2_SYM: Format(2),
    Mode.NF4: Format(4),
    Mode.FP4: Format(4),
    Mode.MXFP4: Format(4, (32,), scale_dtype="F8_E8M0"),
    Mode.NVFP4: Format(4, (16,), scale_dtype="F8_E4M3", tensor_params=("global_scale", "F32", 1)),
    Mode.FP8_E4M3: Format(8, code_dtype="F8_E4M3"),
    Mode.MXFP8_E4M3: Format(8, (32,), code_dtype="F8_E4M3", scale_dtype="F8_E8M0"),
    Mode.CB4: Format(4),
    Mode.CB4_LEARNED: Format(4, tensor_params=("codebook", "F16", 16)),
    Mode.INT5_SYM: Format(5),
}
"""Every mode's format. A new one is a line here and its two functions in ``rounding/``."""

BACKUP_MODES: tuple[Mode | None, ...] = (Mode.INT8_ASYM, Mode.INT8_SYM, Mode.FP8_E4M3, Mode.MXFP8_E4M3, None)
"""What sensitive layers, embeddings and the head can take; None leaves them at 16 bits."""

BACKUPS = {"none" if mode is None else mode.value: mode for mode in BACKUP_MODES}
"""The same by the names they are chosen by."""


@dataclass(frozen=True)
class Part:
    """One stored array of a packed tensor: ``Part("scale", "F16", (576, 9))``; dtypes as safetensors names them."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Scheme:
    """What one tensor becomes: ``Scheme(Mode.INT4_ASYM, 64)``, written ``int4_asym-g64``."""

    mode: Mode
    group_size: int = WHOLE_CHANNEL

    def __post_init__(self) -> None:
        sizes = self.mode.stored_as.group_sizes
        is_free = len(sizes) > 1 and self.group_size >= 2  # a choosable group may be any that divides: 192, say
        if self.group_size not in sizes and not is_free:
            words = ", ".join(str(size) for size in sizes) + (", …" if len(sizes) > 1 else "")
            raise SchemeError("group_size_of_mode", mode=self.mode.value, group_size=self.group_size, sizes=words)

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.name)  # once: plans of ten thousand weights count their schemes at every move

    @cached_property
    def name(self) -> str:
        if not self.mode.is_grouped:
            return self.mode.value
        return f"{self.mode.value}-g{self.group_size if self.group_size > 0 else 'all'}"

    @classmethod
    def of(cls, mode: Mode, group_size: int) -> "Scheme":
        """Return the scheme of ``mode`` with ``group_size``, or with the one the mode prescribes."""
        return cls(mode, group_size if mode.is_grouped else mode.stored_as.group_sizes[0])

    @classmethod
    def parse(cls, name: str) -> "Scheme":
        """Return the scheme whose ``str`` is ``name``. Raises SchemeError for anything else."""
        word, _, group = name.partition("-g")
        mode = parse_mode(word)
        try:
            size = WHOLE_CHANNEL if group in ("", "all") else int(group)
        except ValueError as error:
            raise SchemeError("unknown_scheme", name=name[:40]) from error
        scheme = cls.of(mode, size)
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

    @cache  # noqa: B019 - schemes are few, and so are the shapes of a model
    def parts(self, shape: tuple[int, int]) -> tuple[Part, ...]:
        """Return the arrays that store a [N, K] weight, in the order of the file.

        ``codes``: one byte each at 8 bits [N, K]; else packed along K, low bits first, uint8 [N, ceil(K * bits / 8)].
        ``scale`` [N, G]. ``zero_point``: uint8 [N, 1] at 8 bits, two to a byte [ceil(N * G / 2)] at 4. Then what the
        tensor shares.
        """
        rows, width = shape
        groups = self.groups(width)
        form = self.mode.stored_as
        codes = Part("codes", "U8", (rows, -(-width * form.bits // 8)))
        if form.bits == 8:
            codes = Part("codes", form.code_dtype, (rows, width))
        parts = [codes, Part("scale", form.scale_dtype, (rows, groups))]
        if form.has_zero_point:
            zero_points = (rows, 1) if form.bits == 8 else (-(-rows * groups // 2),)
            parts.append(Part("zero_point", "U8", zero_points))
        if form.tensor_params is not None:
            name, dtype, count = form.tensor_params
            parts.append(Part(name, dtype, (count,)))
        return tuple(parts)

    @cache  # noqa: B019
    def nbytes(self, shape: tuple[int, int]) -> int:
        """Return the exact bytes of a [N, K] weight: codes, scales, zero points and what the tensor shares."""
        return sum(part.nbytes for part in self.parts(shape))


def parse_mode(name: str) -> Mode:
    """Return the mode of this name. Raises SchemeError with the list of valid ones."""
    try:
        return Mode(name)
    except ValueError as error:
        raise SchemeError("unknown_mode", mode=name[:40], modes=", ".join(Mode)) from error


def parse_backup(name: str) -> Mode | None:
    """Return the backup mode of this name, None for ``"none"``. Raises SchemeError with the list of valid ones."""
    if name not in BACKUPS:
        raise SchemeError("unknown_backup", backup=name[:40], backups=", ".join(BACKUPS))
    return BACKUPS[name]


def fitting_group_sizes(widths: Iterable[int]) -> tuple[int, ...]:
    """Return the group sizes that divide every one of ``widths`` (the input channels of the layers to compress)."""
    widths = set(widths)
    return tuple(g for g in GROUP_SIZES if g == WHOLE_CHANNEL or all(width % g == 0 for width in widths))
