"""The vocabulary of formats: Mode, Scheme, and the exact bytes of a tensor. Knows nothing of tensors' values.

A weight is a matrix [N, K]: N output channels, K input channels. Groups run along K. Names and formats are those of
NNCF 3.4 (``nncf.CompressWeightsMode``); scales are stored as OpenVINO does, mostly as fp16.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

from studio.base.dtypes import DTYPE_BYTES
from studio.base.errors import SchemeError
from studio.quantization.formats import Mode
from studio.quantization.mode import FLAT_ZERO_POINT_BITS, GROUP_SIZES, WHOLE_CHANNEL

__all__ = [
    "GROUP_SIZES", "WHOLE_CHANNEL", "Mode", "Part", "Scheme", "backup_modes", "fitting_group_sizes", "parse_backup",
    "parse_mode",
]  # fmt: skip


def backup_modes() -> dict[str, Mode | None]:
    """Return by name what sensitive layers, embeddings and the head can take; ``"none"`` leaves them at 16 bits."""
    modes = sorted((mode for mode in Mode if mode.stored_as.is_backup), key=lambda mode: mode.stored_as.rank)
    return {**{mode.value: mode for mode in modes}, "none": None}


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
        if self.mode.stored_as.block is not None:
            return in_features % self.mode.stored_as.block[0] == 0
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
        ``scale`` [N, G]. ``zero_point``: packed as the codes are, uint8 [N, ceil(G * bits / 8)], but of 4 bits they
        run on from row to row, [ceil(N * G / 2)]. ``offset`` [N, G]. Then what the tensor shares. A format in blocks
        has only ``blocks``, uint8 [N, bytes of a row].
        """
        rows, width = shape
        groups = self.groups(width)
        form = self.mode.stored_as
        if form.block is not None:
            weights, nbytes = form.block
            return (Part("blocks", "U8", (rows, width // weights * nbytes)),)
        codes = Part("codes", "U8", (rows, -(-width * form.bits // 8)))
        if form.bits == 8:
            codes = Part("codes", form.code_dtype, (rows, width))
        parts = [codes, Part("scale", form.scale_dtype, (rows, groups))]
        if form.has_zero_point:
            bits = form.zero_point_bits
            flat = bits == FLAT_ZERO_POINT_BITS
            zero_points = (-(-rows * groups // 2),) if flat else (rows, -(-groups * bits // 8))
            parts.append(Part("zero_point", "U8", zero_points))
        if form.has_offset:
            parts.append(Part("offset", form.scale_dtype, (rows, groups)))
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
    backups = backup_modes()
    if name not in backups:
        raise SchemeError("unknown_backup", backup=name[:40], backups=", ".join(backups))
    return backups[name]


def fitting_group_sizes(widths: Iterable[int]) -> tuple[int, ...]:
    """Return the group sizes that divide every one of ``widths`` (the input channels of the layers to compress)."""
    widths = set(widths)
    return tuple(g for g in GROUP_SIZES if g == WHOLE_CHANNEL or all(width % g == 0 for width in widths))
