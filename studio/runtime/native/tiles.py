"""Weights in tiles of sixteen rows, as the compiled decoder multiplies with them (``cpu/matmul.h``).

A tile holds sixteen rows, one a lane: for each run of inputs the sixteen rows' codes lie side by side. Rows are filled
up to a multiple of 16, inputs of weights with one scale a row to a multiple of 64; codes are neither changed nor
widened, except that 3-bit ones take four bits. Knows nothing of what they are multiplied with.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from studio.quantization.packing import PackedTensor, pack_bits, unpack, unpack_bits, zero_points
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import WHOLE_CHANNEL, Scheme
from studio.runtime.native.arena import Arena

LANES = 16
WIDTH = 64
"""Inputs are filled up to a multiple of this."""


class Kind(IntEnum):
    """How a tile's codes are read, in the order of ``matmul.h``."""

    HALF = 0
    BF16 = 1
    INTEGER4 = 2
    LEVELS4 = 3
    LEVELS2 = 4
    INTEGER8 = 5
    FLOAT8 = 6
    INTEGER5 = 7

    @property
    def stored_as(self) -> torch.dtype:
        """The dtype of an array of codes."""
        return LAYOUTS[self].dtype

    def numbers(self, width: int) -> int:
        """Return how many numbers of that dtype a tile of ``width`` inputs has."""
        layout = LAYOUTS[self]
        return LANES * width * layout.bits // (8 * layout.dtype.itemsize)


@dataclass(frozen=True)
class Layout:
    """How a tile's codes lie: ``Layout(torch.int32, 4, 8)`` for eight codes of 4 bits in each number."""

    dtype: torch.dtype
    bits: int
    run: int
    """Inputs that the inner loop takes at once: they divide a group."""


LAYOUTS = {
    Kind.HALF: Layout(torch.int16, 16, 4),
    Kind.BF16: Layout(torch.int16, 16, 4),
    Kind.INTEGER4: Layout(torch.int32, 4, 32),
    Kind.LEVELS4: Layout(torch.int32, 4, 8),
    Kind.LEVELS2: Layout(torch.int32, 2, 16),
    Kind.INTEGER8: Layout(torch.uint8, 8, 32),
    Kind.FLOAT8: Layout(torch.uint8, 8, 4),
    Kind.INTEGER5: Layout(torch.int32, 5, 32),
}
TAKEN: tuple[tuple[Kind, int, frozenset[tuple[Codes, int]]], ...] = (
    (Kind.FLOAT8, 16, frozenset({(Codes.E4M3, 8)})),
    (Kind.INTEGER8, 64, frozenset({(Codes.SYMMETRIC, 8), (Codes.ASYMMETRIC, 8)})),
    (Kind.INTEGER5, 32, frozenset({(Codes.SYMMETRIC, 5)})),
    (Kind.INTEGER4, 32, frozenset({(Codes.SYMMETRIC, 4), (Codes.ASYMMETRIC, 4), (Codes.SYMMETRIC, 3)})),
    (Kind.LEVELS4, 16, frozenset({(codes, 4) for codes in (Codes.SYMMETRIC, Codes.LEVELS, Codes.E2M1)})),
    (Kind.LEVELS4, 16, frozenset({(Codes.SYMMETRIC, 3)})),
    (Kind.LEVELS2, 16, frozenset({(Codes.SYMMETRIC, 2)})),
)
"""What is laid out how: the first that names codes and bits, and whose number divides the group; rows with one scale
are filled up. Weights in any other format are multiplied by the general path."""
INTEGERS = frozenset({Kind.INTEGER4, Kind.INTEGER5, Kind.INTEGER8})
LEVELS = frozenset({Kind.LEVELS4, Kind.LEVELS2})
FLOATS = frozenset({Kind.HALF, Kind.BF16})
LOOKED_UP = 16
"""Numbers that codes are looked up in."""
LARGEST = 1 << 26
"""No weight has more rows or inputs."""


@dataclass(frozen=True)
class Tiles:
    """A weight [N, K] in tiles; arrays as bytes, in the layout of ``matmul.h``."""

    kind: Kind
    rows: int
    width: int
    """K filled up."""
    group: int
    codes: Tensor
    block: int = 0
    middle: float = 0
    scale: Tensor | None = None
    zero: Tensor | None = None
    levels: Tensor | None = None
    bias: Tensor | None = None

    def within(self, arena: Arena) -> "Tiles":
        """Return the same with its arrays in ``arena``."""

        def put(array: Tensor | None) -> Tensor | None:
            return None if array is None else arena.put(array)

        zero, levels, bias = put(self.zero), put(self.levels), put(self.bias)
        return replace(self, codes=arena.put(self.codes), scale=put(self.scale), zero=zero, levels=levels, bias=bias)

    @property
    def tiles(self) -> int:
        """How many there are."""
        return -(-self.rows // LANES)

    def check(self) -> None:
        """Raise ValueError where sizes do not go together, or an array is missing that codes of this kind need."""
        sizes = (self.rows, self.width, self.group)
        run = LAYOUTS[self.kind].run
        is_block = self.block in (32, 64) if self.kind in INTEGERS else self.block == 0
        if not all(0 < size <= LARGEST for size in sizes) or not is_block:
            raise ValueError(f"no weight is of {self}")
        if self.width % self.group or self.group % max(run, self.block):
            raise ValueError(f"groups of {self.group} do not divide {self.width} inputs")
        if (self.scale is None) != (self.kind in FLOATS) or (self.levels is None) == (self.kind in LEVELS):
            raise ValueError(f"an array of {self.kind.name} is missing")
        if self.zero is not None and self.kind not in INTEGERS:
            raise ValueError(f"{self.kind.name} has no zero points")

    @property
    def nbytes(self) -> int:
        arrays = (self.codes, self.scale, self.zero, self.levels, self.bias)
        return sum(array.nbytes for array in arrays if array is not None)


def takes(scheme: Scheme) -> bool:
    """Return whether weights in this scheme can be laid out in tiles: what the codes are is known here, and the inner
    loops divide their groups."""
    return kind_of(scheme) is not None


def kind_of(scheme: Scheme) -> Kind | None:
    """Return how weights in this scheme are laid out, None where they are not."""
    sort, size = (scheme.mode.grid.codes, scheme.mode.bits), scheme.group_size
    fitting = (kind for kind, least, sorts in TAKEN if sort in sorts and (size == WHOLE_CHANNEL or size % least == 0))
    return next(fitting, None)


def tiles_of(packed: PackedTensor, bias: Tensor | None = None) -> Tiles:
    """Return a packed weight in tiles; ``bias`` [N]. Raises ValueError for one that :func:`takes` refuses."""
    kind = kind_of(packed.scheme)
    if kind is None:
        raise ValueError(f"no tile is laid out for {packed.scheme}")
    rows, width = packed.shape
    mode, size = packed.scheme.mode, packed.scheme.group_size
    filled = width if size > 0 else -(-width // WIDTH) * WIDTH
    group = size if size > 0 else filled
    made = partial(Tiles, kind, rows, filled, group, scale=_scale(packed), bias=_bias(bias))
    if kind is Kind.FLOAT8:
        return made(_inputs(packed.codes.view(torch.uint8), filled))
    if kind is Kind.LEVELS2:
        return made(_dwords(packed.codes, filled // 16), levels=_levels(packed, 4).repeat(4))
    if kind is Kind.LEVELS4:
        return made(_dwords(_nibbles(packed), filled // 8), levels=_levels(packed, 16))
    zeros = zero_points(packed)
    zero, middle = (None, 2 ** (mode.bits - 1)) if zeros is None else (_lanes(zeros), 0)
    if kind is Kind.INTEGER8:
        codes = packed.codes ^ -128 if packed.codes.dtype == torch.int8 else packed.codes
        return made(_eights(codes.view(torch.uint8), filled), WIDTH, middle, zero=zero)
    block = 64 if group % 64 == 0 else 32
    if kind is Kind.INTEGER5:
        return made(_fives(unpack(packed).codes, filled), block, middle, zero=zero)
    return made(_dwords(_nibbles(packed), filled // 8), block, middle, zero=zero)


def tiles_of_floats(weight: Tensor, bias: Tensor | None = None) -> Tiles:
    """Return a weight [N, K] in fp16 or bf16 in tiles."""
    rows, width = weight.shape
    filled = -(-width // WIDTH) * WIDTH
    kind = Kind.HALF if weight.dtype == torch.float16 else Kind.BF16
    weight = weight if kind is Kind.HALF else weight.bfloat16()
    return Tiles(kind, rows, filled, filled, _inputs(weight.view(torch.int16), filled), bias=_bias(bias))


def _bias(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float().contiguous()


def _nibbles(packed: PackedTensor) -> Tensor:
    """Return codes of 3 or 4 bits in 4 bits each, two to a byte."""
    if packed.scheme.mode.bits == 4:
        return packed.codes
    return pack_bits(unpack_bits(packed.codes, packed.scheme.mode.bits, packed.shape[1]), 4)


def _levels(packed: PackedTensor, count: int) -> Tensor:
    """Return what each code stands for, fp32 [count]."""
    codes = torch.arange(count, dtype=torch.uint8, device="cpu")
    return packed.scheme.mode.grid.values(codes, packed.tensor_params).float().contiguous()


def _scale(packed: PackedTensor) -> Tensor:
    """[N, G] -> [tiles, G, 16], in fp16 where that is what is stored."""
    scale = packed.scale
    if scale.dtype != torch.float16:
        scale = scale.float()
    if packed.scheme.mode.grid.has_global_scale and packed.tensor_params is not None:
        scale = scale * packed.tensor_params
    return _lanes(scale)


def _lanes(numbers: Tensor) -> Tensor:
    """[N, G] -> [tiles, G, 16]: one of each row side by side."""
    rows, columns = numbers.shape
    return pad(numbers, (0, 0, 0, -rows % LANES)).reshape(-1, LANES, columns).transpose(1, 2).contiguous()


def _inputs(numbers: Tensor, filled: int) -> Tensor:
    """[N, K] -> [tiles, filled, 16]."""
    return _lanes(pad(numbers, (0, filled - numbers.shape[1])))


def _dwords(packed: Tensor, count: int) -> Tensor:
    """Bytes of small codes [N, B] -> [tiles, count, 16] of four bytes each."""
    filled = pad(packed, (0, 4 * count - packed.shape[1])).contiguous()
    return _lanes(filled.view(torch.int32))


def _fives(codes: Tensor, filled: int) -> Tensor:
    """[N, K] codes of 5 bits -> [tiles, filled / 32, 5, 16] of four bytes.

    Of each 32 inputs the lower bits of four times eight, then the fifth bits of all: those of the first four of each
    eight in the lower half, those of the others in the upper.
    """
    whole = pad(codes, (0, filled - codes.shape[1])).reshape(len(codes), -1, 4, 8)
    lower = pack_bits(whole & 15, 4).view(torch.int32).flatten(2)
    halves = (whole >> 4).reshape(*whole.shape[:3], 2, 4).transpose(2, 3)  # half, eight, number of the half
    fifth = halves.flatten(2).int()
    upper = (fifth << torch.arange(32, dtype=torch.int32, device="cpu")).sum(-1, keepdim=True, dtype=torch.int32)
    return _lanes(torch.cat((lower, upper), -1).flatten(1))


def _eights(codes: Tensor, filled: int) -> Tensor:
    """[N, K] bytes -> [tiles, filled / 8, 2, 16, 4]: of each eight inputs sixteen rows' even ones, then the odd."""
    rows, width = codes.shape
    whole = pad(codes, (0, filled - width, 0, -rows % LANES))
    return whole.reshape(-1, LANES, filled // 8, 4, 2).permute(0, 2, 4, 1, 3).contiguous()
