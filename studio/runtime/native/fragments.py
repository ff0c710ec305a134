"""Weights in the order in which tensor cores take them, as the CUDA decoder multiplies (``cuda/weight.cuh``).

A tile holds sixteen rows, a block of a tile as many inputs as a warp reads in one go; codes are neither changed nor
widened, except that 3-bit ones take four bits and 5-bit ones eight. Rows are filled up to a multiple of 16, inputs to
one of a block. Knows nothing of what they are multiplied with.
"""

import ctypes
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import gcd

import torch
from torch import Tensor
from torch.nn.functional import pad

from studio.base.pointers import CUDA, address, optional
from studio.quantization.packing import PackedTensor, pack_bits, unpack, zero_points
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import WHOLE_CHANNEL, Scheme

ROWS = 16
"""Of a tile."""
STEP = 16
"""Inputs of one m16n8k16 product."""
MOST_STEPS = 4
"""That can share a scale in the kernel: more inputs do not share their power of two."""
SLAB = 1 << 25
"""Weights laid out at once."""


class Kind(IntEnum):
    """How codes are read, in the order of ``weight.cuh``."""

    HALF = 0
    BF16 = 1
    INTEGER2 = 2
    INTEGER3 = 3
    INTEGER4 = 4
    INTEGER8 = 5
    LEVELS4 = 6
    FLOAT4 = 7
    FLOAT8 = 8


BITS = {Kind.HALF: 16, Kind.BF16: 16, Kind.INTEGER2: 2, Kind.INTEGER8: 8, Kind.FLOAT8: 8}
"""Of a code here; 4 for the others."""
TAKEN = {
    (Codes.SYMMETRIC, 8): Kind.INTEGER8, (Codes.ASYMMETRIC, 8): Kind.INTEGER8, (Codes.SYMMETRIC, 5): Kind.INTEGER8,
    (Codes.SYMMETRIC, 4): Kind.INTEGER4, (Codes.ASYMMETRIC, 4): Kind.INTEGER4, (Codes.SYMMETRIC, 3): Kind.INTEGER3,
    (Codes.SYMMETRIC, 2): Kind.INTEGER2, (Codes.LEVELS, 4): Kind.LEVELS4, (Codes.E2M1, 4): Kind.FLOAT4,
    (Codes.E4M3, 8): Kind.FLOAT8,
}  # fmt: skip
"""What is laid out how, by codes and bits. Weights in any other format are not multiplied here."""
READ_AS: dict[Kind, Mapping[Codes, Collection[int]]] = {
    Kind.INTEGER2: {Codes.SYMMETRIC: (2,)}, Kind.INTEGER3: {Codes.SYMMETRIC: (3,)},
    Kind.INTEGER4: {Codes.SYMMETRIC: (4,), Codes.ASYMMETRIC: (4,)},
    Kind.INTEGER8: {Codes.SYMMETRIC: range(2, 9), Codes.ASYMMETRIC: (8,)},  # codes are widened, zero points are not
    Kind.LEVELS4: dict.fromkeys((Codes.LEVELS, Codes.E2M1, Codes.SYMMETRIC), (4,)),
    Kind.FLOAT4: {Codes.E2M1: (4,)}, Kind.FLOAT8: {Codes.E4M3: (8,)},
}  # fmt: skip
"""The codes, and of how many bits, that ``weight.cuh`` and :func:`fragments_of` give a kind the right numbers for."""
SCALES = {"F16": torch.float16, "F8_E4M3": torch.float16, "F8_E8M0": torch.bfloat16}
"""What the kernels are given of stored scales, exactly: fp16 cannot hold all powers of two."""
EXCESS = {Kind.INTEGER4: (16, 256), Kind.INTEGER8: (-128, -128)}
"""How far unpacked numbers are above codes that can have a zero point, in the upper and the lower rows of a tile."""
FACTORS = {Kind.FLOAT4: 2.0**14, Kind.FLOAT8: 2.0**8}
"""Their bits, put into fp16, are too small by this."""


def check(taken: Mapping[tuple[Codes, int], Kind]) -> None:
    """Raise ValueError, with what is valid, for codes that would be read as other numbers than they stand for."""
    for (codes, bits), kind in taken.items():
        readable = READ_AS.get(kind, {})
        if bits not in readable.get(codes, ()):
            valid = ", ".join(f"{each.name} of {', '.join(map(str, some))} bits" for each, some in readable.items())
            raise ValueError(f"{kind.name} cannot be {codes.name} of {bits} bits; it can be {valid or 'no codes'}")
        if codes is Codes.ASYMMETRIC and kind not in EXCESS:
            raise ValueError(f"{kind.name} has zero points, and EXCESS does not say what is above them")


check(TAKEN)


class WeightPointers(ctypes.Structure):
    """``Weight`` of ``weight.cuh``."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("codes", "scale", "bias", "levels")),
        ("factor", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("rows", "tiles", "blocks")),
    ]


@dataclass(frozen=True)
class Fragments:
    """A weight [N, K], or several one below the other, on a device."""

    kind: Kind
    rows: int
    width: int
    """K."""
    per: int
    """Steps that share a scale."""
    is_paired: bool
    """Whether a tile holds eight rows of the first half and the eight of the second that belong to them."""
    codes: Tensor
    """int32 [tiles, blocks, 32 lanes, 4]."""
    scale: Tensor | None = None
    """Records [tiles, spans, 8, 2 or 4] of 16 bits: scales of rows g and g + 8 of a tile, fp16 or bf16, and where there
    are zero points these and how far unpacked numbers are above their codes, fp16. A span is at most 64 inputs, larger
    groups repeat theirs."""
    levels: Tensor | None = None
    """uint8 [2, 16]: the low bytes of sixteen fp16 numbers, then the high ones."""
    bias: Tensor | None = None
    """fp32 [tiles * 16], in the order of the tiles."""
    factor: float = 1.0

    @property
    def nbytes(self) -> int:
        arrays = (self.codes, self.scale, self.levels, self.bias)
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def is_whole(self) -> bool:
        """Whether a row has one scale."""
        return self.scale is None or self.scale.shape[1] == 1

    @property
    def has_zero(self) -> bool:
        """Whether it has zero points."""
        return self.scale is not None and self.scale.shape[3] == 4

    @property
    def pointers(self) -> WeightPointers:
        """What the kernels are given; this object has to outlive them. Raises ValueError for arrays of other sizes."""

        tiles, blocks = self.codes.shape[:2]
        steps = steps_of(self.kind)
        if tiles * ROWS < self.rows or blocks * steps * STEP < self.width or steps % self.per:
            raise ValueError(f"codes of {list(self.codes.shape)} are not those of [{self.rows}, {self.width}]")
        spans = 1 if self.is_whole else blocks * steps // self.per
        scale = self.scale
        return WeightPointers(
            codes=address(self.codes, torch.int32, tiles * blocks * 32 * 4, CUDA),
            scale=None if scale is None else address(scale, scale.dtype, tiles * spans * 8 * scale.shape[3], CUDA),
            bias=optional(self.bias, torch.float32, tiles * ROWS, CUDA),
            levels=optional(self.levels, torch.uint8, 2 * 16, CUDA),
            factor=self.factor,
            rows=self.rows,
            tiles=tiles,
            blocks=blocks,
        )

    @property
    def sort(self) -> str:
        """What the kernels are compiled for."""
        flags = (self.is_whole, self.has_zero, self.scale is not None and self.scale.dtype == torch.bfloat16)
        return f"Sort<{', '.join([str(int(self.kind)), str(self.per), *(str(flag).lower() for flag in flags)])}>"


def steps_of(kind: Kind) -> int:
    """Return how many steps a block has: 16 bytes of each lane, eight codes a step."""
    return 16 // BITS.get(kind, 4)


def takes(scheme: Scheme) -> bool:
    """Return whether weights in this scheme can be laid out so: codes and scales are known here, and steps divide their
    groups."""
    form = scheme.mode.stored_as
    if kind_of(scheme) is None or form.scale_dtype not in SCALES:
        return False
    if form.has_zero_point and SCALES[form.scale_dtype] != torch.float16:  # they share a record with the scales
        return False
    return scheme.group_size == WHOLE_CHANNEL or scheme.group_size % STEP == 0


def kind_of(scheme: Scheme) -> Kind | None:
    """Return how weights in this scheme are read, None where they are not."""
    return TAKEN.get((scheme.mode.grid.codes, scheme.mode.bits))


def can_join(first: PackedTensor | Tensor, second: PackedTensor | Tensor) -> bool:
    """Return whether two weights can lie one below the other: nothing that a whole tensor shares differs."""
    if isinstance(first, PackedTensor) and isinstance(second, PackedTensor):
        return first.scheme == second.scheme and first.tensor_params is None and second.tensor_params is None
    return isinstance(first, Tensor) and isinstance(second, Tensor) and first.dtype == second.dtype


def fragments_of(
    weights: Sequence[PackedTensor | Tensor],
    biases: Sequence[Tensor | None],
    device: torch.device,
    is_paired: bool = False,
) -> Fragments:
    """Return weights that :func:`can_join`, one below the other, on a device; ``biases`` [N] of each.

    ``is_paired``: row i of the first half and row i of the second come into the same tile. Raises ValueError for a
    scheme that :func:`takes` refuses.
    """
    first = weights[0]
    rows, width = sum(weight.shape[0] for weight in weights), first.shape[1]
    order = _order(rows, is_paired, device)
    bias = None
    if any(each is not None for each in biases):
        parts = [
            torch.zeros(w.shape[0], dtype=torch.float32, device=device) if b is None else b
            for w, b in zip(weights, biases, strict=True)
        ]
        bias = _picked(torch.cat([part.float().to(device) for part in parts]), order)
    if isinstance(first, Tensor):
        kind = Kind.HALF if first.dtype == torch.float16 else Kind.BF16
        dtype = torch.float16 if kind is Kind.HALF else torch.bfloat16
        floats = [weight.to(device, dtype) for weight in weights]  # type: ignore[union-attr]
        codes = _laid_out(kind, 1, [weight.view(torch.int16) for weight in floats], order, width)
        return Fragments(kind, rows, width, 1, is_paired, codes, bias=bias)
    scheme = first.scheme
    moved = [_moved(weight, device) for weight in weights if isinstance(weight, PackedTensor)]
    known = kind_of(scheme)
    if known is None or not takes(scheme):
        raise ValueError(f"no fragment is laid out for {scheme}")
    kind = known
    steps = steps_of(kind)
    group = scheme.group_size if scheme.group_size != WHOLE_CHANNEL else 0
    per = gcd(min(steps, MOST_STEPS), group // STEP) if group else min(steps, MOST_STEPS)
    spans = -(-width // (STEP * steps)) * steps // per
    group_of_span = (
        torch.arange(spans, dtype=torch.int64, device=device) * STEP * per // group
        if group
        else torch.zeros(1, dtype=torch.int64, device=device)
    )
    scale = _records(torch.cat([_scale(weight) for weight in moved]), order, group_of_span)
    if scheme.mode.has_zero_point:
        zeros = _records(torch.cat([_zero_points(weight) for weight in moved]).half(), order, group_of_span)
        scale = torch.cat((scale, zeros + torch.tensor(EXCESS[kind], dtype=zeros.dtype, device=device)), -1)
    factor = FACTORS.get(kind, 1.0)
    if scheme.mode.grid.has_global_scale and first.tensor_params is not None:
        factor *= float(first.tensor_params)
    return Fragments(
        kind,
        rows,
        width,
        per,
        is_paired,
        _laid_out(kind, per, moved, order, width),
        scale,
        _levels(first, device) if kind is Kind.LEVELS4 else None,
        bias,
        factor,
    )


def _order(rows: int, is_paired: bool, device: torch.device) -> Tensor:
    """Return which row comes where, int64 [tiles * 16], -1 for none."""
    if not is_paired:
        return pad(torch.arange(rows, dtype=torch.int64, device=device), (0, -rows % ROWS), value=-1)
    half = pad(
        torch.arange(rows // 2, dtype=torch.int64, device=device), (0, -(rows // 2) % (ROWS // 2)), value=-1
    ).reshape(-1, 1, ROWS // 2)
    return torch.cat((half, torch.where(half < 0, half, half + rows // 2)), 1).flatten()


def _picked(array: Tensor, order: Tensor) -> Tensor:
    """Return rows in this order, zeros where there is none."""
    picked = array[order.clamp(min=0)]
    picked[order < 0] = 0
    return picked


def _moved(packed: PackedTensor, device: torch.device) -> PackedTensor:
    arrays = {name: array.to(device) for name, array in packed.arrays().items()}
    return PackedTensor.of(packed.scheme, packed.shape, arrays)


def _laid_out(
    kind: Kind, per: int, weights: Sequence[PackedTensor] | Sequence[Tensor], order: Tensor, width: int
) -> Tensor:
    """Return codes int32 [tiles, blocks, 32, 4] of the weights' rows in ``order``."""
    steps = steps_of(kind)
    blocks = -(-width // (STEP * steps))
    made = torch.empty(order.numel() // ROWS, blocks, 32, 4, dtype=torch.int32, device=order.device)
    at_once = max(1, SLAB // (blocks * STEP * steps * ROWS))
    for start in range(0, len(made), at_once):
        wanted = order[start * ROWS : (start + at_once) * ROWS]
        codes = _picked_codes(weights, wanted)
        made[start : start + at_once] = _fragments(kind, per, pad(codes, (0, blocks * STEP * steps - width)))
    return made


def _picked_codes(weights: Sequence[PackedTensor] | Sequence[Tensor], wanted: Tensor) -> Tensor:
    """Return the codes [len(wanted), K] of these rows of weights one below the other; ValueError for none of them."""
    found: Tensor | None = None
    start = 0
    for weight in weights:
        here = (wanted >= start) & (wanted < start + weight.shape[0])
        if bool(here.any()):
            rows = wanted[here] - start
            low, high = int(rows.min()), int(rows.max()) + 1
            # Rows of a pair are far apart: each half is unpacked for itself.
            halves = [(low, high)] if high - low <= len(wanted) else _runs(rows)
            pieces = [(a, weight[a:b] if isinstance(weight, Tensor) else _codes(weight, a, b)) for a, b in halves]
            if found is None:
                found = pieces[0][1].new_zeros(len(wanted), weight.shape[1])
            for a, codes in pieces:
                inside = here & (wanted - start >= a) & (wanted - start < a + len(codes))
                found[inside] = codes[wanted[inside] - start - a]
        start += weight.shape[0]
    if found is None:
        raise ValueError("no such rows")
    return found


def _codes(packed: PackedTensor, start: int, stop: int) -> Tensor:
    """Return codes as the kernel reads them: of 5 bits as those of 8 that stand for the same."""
    codes = unpack(packed, start, stop).codes
    is_widened = kind_of(packed.scheme) is Kind.INTEGER8 and packed.scheme.mode.bits < 8
    return codes + (128 - 2 ** (packed.scheme.mode.bits - 1)) if is_widened else codes


def _runs(rows: Tensor) -> list[tuple[int, int]]:
    """Return the two ranges that rows of a weight's both halves lie in."""
    ordered = rows.sort().values
    cut = int((ordered[1:] - ordered[:-1]).argmax()) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in (ordered[:cut], ordered[cut:])]


def _fragments(kind: Kind, per: int, codes: Tensor) -> Tensor:
    """Codes [tiles * 16, blocks * inputs] -> int32 [tiles, blocks, 32, 4]."""
    steps, bits = steps_of(kind), BITS.get(kind, 4)
    rows, filled = codes.shape
    tiles, blocks = rows // ROWS, filled // (STEP * steps)
    # row = 8 r + g; input = block, span, lane t of four, step of the span, then pair m of two and number n of the pair
    split = codes.reshape(tiles, 2, 8, blocks, steps // per, 4, per, 2, 2)
    tile, r, g, block, span, t, step, m, n = range(9)
    pairs = split.permute(tile, block, g, t, span, step, m, r, n).reshape(tiles, blocks, 32, steps, 4, 2)
    if kind in (Kind.INTEGER4, Kind.INTEGER3):
        return _words(pairs).flatten(3)
    if kind is Kind.FLOAT4:
        # nibbles 0 to 3 of a word are the first numbers of its four pairs, 4 to 7 the second
        pairs = pairs.transpose(-1, -2)
    elif kind is Kind.INTEGER2:
        # the same in words of two steps
        pairs = pairs.reshape(tiles, blocks, 32, steps // 2, 2, 4, 2).permute(0, 1, 2, 3, 6, 4, 5)
    flat = pairs.reshape(tiles, blocks, 32, 8 * steps)
    packed = flat.contiguous() if bits >= 8 else pack_bits(flat, bits)
    return packed.view(torch.int32)


def _words(pairs: Tensor) -> Tensor:
    """Four pairs of codes [..., 4, 2] -> int32 [...], each half of it one of every pair: the first in bits 6 to 9, the
    second in bits 2 to 5, third and fourth so once the half's bytes are swapped."""
    first, second, third, fourth = pairs.int().unbind(-2)
    half = first << 6 | second << 2 | fourth << 10 | (third & 3) << 14 | third >> 2
    return half[..., 0] | half[..., 1] << 16


def _records(numbers: Tensor, order: Tensor, group_of_span: Tensor) -> Tensor:
    """[N, G] -> [tiles, spans, 8, 2]; spans behind the last group, which rows are filled up with, get zeros."""
    filled = pad(_picked(numbers, order), (0, 1))[:, group_of_span.clamp(max=numbers.shape[1])]
    return filled.reshape(-1, 2, 8, len(group_of_span)).permute(0, 3, 2, 1).contiguous()


def _scale(packed: PackedTensor) -> Tensor:
    """[N, G], fp16, or bf16 where they are powers of two that fp16 cannot hold."""
    return packed.scale.to(SCALES[packed.scheme.mode.stored_as.scale_dtype])


def _zero_points(packed: PackedTensor) -> Tensor:
    found = zero_points(packed)
    if found is None:
        raise ValueError("no zero points")
    return found


def _levels(packed: PackedTensor, device: torch.device) -> Tensor:
    """Return what the codes stand for as the kernel looks it up, uint8 [2, 16]."""
    codes = torch.arange(16, dtype=torch.uint8, device=device)
    tensor_params = None if packed.tensor_params is None else packed.tensor_params.to(device)
    values = packed.scheme.mode.grid.values(codes, tensor_params).half()
    return values.view(torch.uint8).reshape(16, 2).T.contiguous()
