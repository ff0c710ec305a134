"""What a format says of itself when it is registered. Knows neither the formats nor, until it is asked, torch.

A format is checked when it is made. What is compiled (``native/``, ``runtime/native/``) names what it takes by these
properties and refuses the rest, so a new format is right everywhere before it is fast anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from studio.quantization.registry import Word

if TYPE_CHECKING:
    from studio.quantization.ggml.blocks import BlockFormat
    from studio.quantization.rounding.quantized_weight import NumberFormat

WHOLE_CHANNEL = -1
"""The group size that means one scale per output channel."""

GROUP_SIZES = (WHOLE_CHANNEL, 32, 64, 128, 256)
"""What a user can choose from."""

BITS = range(2, 9)
CODE_DTYPES = ("U8", "I8", "F8_E4M3")
SCALE_DTYPES = ("F16", "BF16", "F32", "F8_E4M3", "F8_E8M0")
FLAT_ZERO_POINT_BITS = 4
"""Zero points of so many bits run on from row to row, two to a byte, as OpenVINO has them; others begin anew."""


@dataclass(frozen=True)
class Format:
    """How a mode stores its numbers, ``Format(4, later("…integer", "asymmetric", 4), zero_point_bits=4)``, and where it
    stands among the others. Dtypes as safetensors names them.

    Raises ValueError, with what is valid, for a format that cannot be stored.
    """

    bits: int
    """Of one code."""
    grid: Callable[[], "NumberFormat"]
    """Returns how weights get their codes and what these stand for; called once, when the first weight is rounded."""
    group_sizes: tuple[int, ...] = GROUP_SIZES
    """Those a user can choose; a single one is fixed."""
    zero_point_bits: int = 0
    """Of one zero point, 0 where there are none."""
    has_offset: bool = False
    """Whether each group has a number that is added to what its codes stand for, in the scale's dtype: a zero point
    that is no integer, as MLX has it."""
    code_dtype: str = "U8"
    """Of an 8-bit code; smaller codes are packed into bytes."""
    scale_dtype: str = "F16"
    tensor_params: tuple[str, str, int] | None = None
    """What a whole tensor shares: name, dtype, how many numbers."""
    block: tuple[int, int] | None = None
    """Weights and bytes of a block that holds codes and scales together, as ggml's do (``ggml/``); None where they are
    arrays of their own."""
    misfit: str = ""
    """The mode that a weight takes whose width the block does not divide, as llama.cpp has it."""
    rank: int = 1000
    """Its place in menus: what most people want comes first."""
    is_surveyed: bool = False
    """Whether every layer is measured in it from the start, also before anybody chooses it."""
    is_mixable: bool = True
    """Whether a ratio applies: NNCF's 8-bit integers take every weight."""
    is_backup: bool = False
    """Whether sensitive layers, embeddings and the head can take it."""
    backup: str = "int8_asym"
    """The mode that they take where this is the mode of the rest and nobody says otherwise."""

    def __post_init__(self) -> None:
        _check("bits", self.bits, self.bits in BITS, "2 to 8")
        sizes = self.group_sizes
        is_fixed = len(sizes) == 1 and isinstance(sizes[0], int) and (sizes[0] == WHOLE_CHANNEL or sizes[0] >= 2)
        _check("group sizes", sizes, is_fixed or sizes == GROUP_SIZES, f"{GROUP_SIZES}, or one of -1, 2, 3, …")
        codes = CODE_DTYPES if self.bits == 8 else CODE_DTYPES[:1]
        _check(f"codes of {self.bits} bits", self.code_dtype, self.code_dtype in codes, ", ".join(codes))
        _check("scales", self.scale_dtype, self.scale_dtype in SCALE_DTYPES, ", ".join(SCALE_DTYPES))
        zeros = (0, *range(self.bits, 9))
        said = ", ".join(map(str, zeros))
        _check(f"zero points of {self.bits}-bit codes", self.zero_point_bits, self.zero_point_bits in zeros, said)
        if self.has_offset:
            _check("offsets beside zero points of bits", self.zero_point_bits, not self.zero_point_bits, "0")
            _check("offsets in", self.scale_dtype, self.scale_dtype in SCALE_DTYPES[:3], ", ".join(SCALE_DTYPES[:3]))
        if self.tensor_params is not None:
            name, dtype, count = self.tensor_params
            taken = ("codes", "scale", "zero_point", "offset")
            _check(
                "shared numbers", name, name.isidentifier() and name not in taken, f"any name but {', '.join(taken)}"
            )
            _check("shared numbers", dtype, dtype in SCALE_DTYPES[:3], ", ".join(SCALE_DTYPES[:3]))
            _check("shared numbers", count, count > 0, "1, 2, …")

    @property
    def has_zero_point(self) -> bool:
        return self.zero_point_bits > 0


def _check(what: str, given: object, is_valid: bool, valid: str) -> None:
    if not is_valid:
        raise ValueError(f"no format has {what} {given!r}; valid are {valid}")


class Mode(Word):
    """How a compressed weight is stored, by the name of NNCF or ggml; ``formats.py`` says which there are."""

    stored_as: Format

    @classmethod
    def register(cls, name: str, stored_as: Format) -> Self:
        """Add a mode to all menus, options and checks. Raises ValueError for a name that is taken or cannot be one."""
        return cls._add(name, stored_as=stored_as)

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
        return self.stored_as.is_mixable

    @property
    def default_backup(self) -> "Mode":
        """NNCF's: the FP4 and FP8 formats back each other."""
        return Mode(self.stored_as.backup)

    @property
    def is_in_blocks(self) -> bool:
        """Whether codes and scales lie together in blocks."""
        return self.stored_as.block is not None

    @property
    def has_free_scales(self) -> bool:
        """Whether scales are floats of their own, of which each can be any: those in blocks with the codes, powers of
        two and the like are not."""
        return not self.is_in_blocks and self.stored_as.scale_dtype in ("F16", "BF16", "F32")

    @cached_property
    def block_format(self) -> "BlockFormat":
        """How such blocks are laid out. Raises ValueError for a mode that has none."""
        from studio.quantization.ggml.formats import BLOCK_FORMATS

        if self.value not in BLOCK_FORMATS:
            raise ValueError(f"{self} is not stored in blocks")
        return BLOCK_FORMATS[self.value]

    @cached_property
    def grid(self) -> "NumberFormat":
        """How weights get their codes. Raises ValueError where that does not go with what is stored."""
        grid = self.stored_as.grid()
        if (grid.fit is None) != (self.stored_as.tensor_params is None):
            raise ValueError(f"{self}: what a tensor shares must be both found by the grid and stored by the format")
        if grid.takes_zero_point is not None and grid.takes_zero_point != self.has_zero_point:
            raise ValueError(f"{self}: the grid and the format do not agree about zero points")
        if grid.has_offset != self.stored_as.has_offset:
            raise ValueError(f"{self}: the grid and the format do not agree about offsets")
        if grid.bits not in (0, self.bits):
            raise ValueError(f"{self}: a grid of {grid.bits} bits for codes of {self.bits}")
        return grid
