"""Packed weights and 16-bit floats -> tiles of sixteen rows. Knows what codes and scales are, not who multiplies.

Rows are filled up to a multiple of 16, inputs of weights with one scale a row to a multiple of 64. Codes and scales are
neither changed nor widened, except that 3-bit codes in groups of 16 take four bits, scales that are neither fp16 nor
small integers take fp32, and the small integers a byte each. A format is laid out a few rows at a time.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import BlockFormat, Blocks
from studio.quantization.packing import PackedTensor, unpack, zero_points
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import WHOLE_CHANNEL, Scheme
from studio.runtime.native.tile_codes import LANES, inputs, lanes, nibbles, octets, words
from studio.runtime.native.tiles import BLOCKS, LAYOUTS, WIDTH, Kind, Tiles

SLAB = 1 << 22
"""Weights unpacked at once."""
TAKEN: tuple[tuple[Kind, int, frozenset[tuple[Codes, int]]], ...] = (
    (Kind.FLOAT8, 16, frozenset({(Codes.E4M3, 8)})),
    (Kind.INTEGER8, 16, frozenset({(Codes.SYMMETRIC, 8), (Codes.ASYMMETRIC, 8), (Codes.AFFINE, 8)})),
    (Kind.INTEGER6, 16, frozenset({(Codes.AFFINE, 6)})),
    (Kind.INTEGER5, 32, frozenset({(Codes.SYMMETRIC, 5), (Codes.AFFINE, 5)})),
    (Kind.INTEGER4, 16, frozenset({(Codes.SYMMETRIC, 4), (Codes.ASYMMETRIC, 4), (Codes.AFFINE, 4)})),
    (Kind.INTEGER3, 32, frozenset({(Codes.SYMMETRIC, 3), (Codes.AFFINE, 3)})),
    (Kind.INTEGER4, 16, frozenset({(Codes.SYMMETRIC, 3), (Codes.AFFINE, 3)})),
    (Kind.INTEGER2, 16, frozenset({(Codes.SYMMETRIC, 2), (Codes.AFFINE, 2)})),
    (Kind.LEVELS4, 16, frozenset({(Codes.LEVELS, 4), (Codes.E2M1, 4)})),
)
"""What is laid out how: the first that names codes and bits, and whose number divides the group; rows with one scale
are filled up. Weights in any other format are multiplied by the general path."""
BY_BITS = {
    2: Kind.INTEGER2, 3: Kind.INTEGER3, 4: Kind.INTEGER4, 5: Kind.INTEGER5, 6: Kind.INTEGER6, 8: Kind.INTEGER8
}  # fmt: skip
"""How whole steps of a block format are laid out."""


def takes(scheme: Scheme) -> bool:
    """Return whether weights in this scheme can be laid out in tiles: what the codes are is known here, and the inner
    loops divide their groups."""
    return kind_of(scheme) is not None


def kind_of(scheme: Scheme) -> Kind | None:
    """Return how weights in this scheme are laid out, None where they are not."""
    if scheme.mode.is_in_blocks:
        return _kind_of_blocks(scheme.mode.block_format)
    sort, size = (scheme.mode.grid.codes, scheme.mode.bits), scheme.group_size
    fitting = (kind for kind, least, sorts in TAKEN if sort in sorts and (size == WHOLE_CHANNEL or size % least == 0))
    return next(fitting, None)


def tiles_of(packed: PackedTensor, bias: Tensor | None = None) -> Tiles:
    """Return a packed weight in tiles; ``bias`` [N]. Raises ValueError for one that :func:`takes` refuses."""
    kind = kind_of(packed.scheme)
    if kind is None:
        raise ValueError(f"no tile is laid out for {packed.scheme}")
    if packed.scheme.mode.is_in_blocks:
        return _of_blocks(packed, kind, bias)
    rows, width = packed.shape
    mode, size = packed.scheme.mode, packed.scheme.group_size
    filled = width if size > 0 else -(-width // WIDTH) * WIDTH
    group = size if size > 0 else filled
    made = partial(Tiles, kind, rows, filled, group, scale=_scale(packed), bias=_bias(bias))
    if kind is Kind.FLOAT8:
        return made(inputs(packed.codes.view(torch.uint8), filled))
    if kind is Kind.LEVELS4:
        return made(nibbles(packed.codes, filled), levels=_levels(packed))
    zeros = zero_points(packed)
    zero, middle = (None, 2 ** (mode.bits - 1)) if zeros is None else (lanes(zeros), 0)
    offset = None
    if packed.offset is not None:
        middle, offset = 0, lanes(packed.offset if packed.scale.dtype == torch.float16 else packed.offset.float())
    if kind is Kind.INTEGER4 and mode.bits == 4:
        codes = nibbles(packed.codes, filled)
    else:
        codes = _in_slabs(packed, kind, filled, lambda start, stop: unpack(packed, start, stop).codes)
    return made(codes, _block(group), middle, zero=zero, offset=offset)


def tiles_of_floats(weight: Tensor, bias: Tensor | None = None) -> Tiles:
    """Return a weight [N, K] in fp16 or bf16 in tiles."""
    rows, width = weight.shape
    filled = -(-width // WIDTH) * WIDTH
    kind = Kind.HALF if weight.dtype == torch.float16 else Kind.BF16
    weight = weight if kind is Kind.HALF else weight.bfloat16()
    return Tiles(kind, rows, filled, filled, inputs(weight.view(torch.int16), filled), bias=_bias(bias))


def _kind_of_blocks(form: BlockFormat) -> Kind | None:
    """Return how a format of ggml is laid out: whole steps as they are, others as bytes that codes are looked up in."""
    ranges = [each for each in (form.scale_range, form.min_range) if each is not None]
    if any(low < -128 or high > 127 for low, high in ranges) or form.sub_block % LANES:
        return None
    if form.is_uniform and form.levels[0].is_integer():
        kind = BY_BITS.get(form.bits)
        return None if kind is None or form.block % LAYOUTS[kind].run else kind
    low, high = form.levels[0], form.levels[-1]
    are_bytes = all(level.is_integer() for level in form.levels) and high - low <= 255
    return Kind.TABLE4 if are_bytes and len(form.levels) == 16 and not form.has_offset else None


def _of_blocks(packed: PackedTensor, kind: Kind, bias: Tensor | None) -> Tiles:
    """Return a weight in blocks of ggml's; what is read of a block is what gguf-py reads, to the last bit."""
    rows, width = packed.shape
    form = packed.scheme.mode.block_format
    scales: list[list[Tensor]] = []

    def codes(start: int, stop: int) -> Tensor:
        blocks = form.unpack(packed.codes[start:stop])
        scales.append([lanes(part) for part in _scales(blocks)])
        return blocks.codes

    made = _in_slabs(packed, kind, width, codes)
    scale, *others = (torch.cat(parts) for parts in zip(*scales, strict=True))
    names = ["offset"] * form.has_offset + ["scale_factor"] * (form.scale_range is not None)
    names += ["offset_factor"] * (form.min_range is not None)
    levels = None
    if kind is Kind.TABLE4:
        levels = torch.tensor(form.levels, dtype=torch.float32, device="cpu") - form.levels[0]
    return Tiles(
        kind, rows, width, form.sub_block, made, _block(form.sub_block), -form.levels[0], scale,
        levels=levels, bias=_bias(bias), span=form.block, **dict(zip(names, others, strict=True)),
    )  # fmt: skip


def _scales(blocks: Blocks) -> list[Tensor]:
    """Return what a weight's blocks have beside codes, [N, S] or [N, G], in the order: scale, offset, their factors."""
    mins = None if blocks.mins is None else -blocks.mins
    factors = [None if part is None else part.to(torch.int8) for part in (blocks.scales, mins)]
    return [part for part in (blocks.d, blocks.dmin, *factors) if part is not None]


def _in_slabs(packed: PackedTensor, kind: Kind, filled: int, codes: Callable[[int, int], Tensor]) -> Tensor:
    """Return the tiles of a weight's codes, uint8 [stop - start, K] of some rows at a time."""
    rows, layout = packed.shape[0], LAYOUTS[kind]
    numbers = kind.numbers(filled)
    made = torch.empty(-(-rows // LANES), numbers, dtype=layout.dtype, device="cpu")
    step = max(1, SLAB // (filled * LANES)) * LANES
    for start in range(0, rows, step):
        slab = codes(start, min(start + step, rows))
        laid = octets(slab, filled) if layout.bits == 8 else words(slab, layout.bits, filled)
        made[start // LANES : (start + step) // LANES] = laid.reshape(-1, numbers)
    return made


def _block(group: int) -> int:
    """Return how many inputs share a step size, as many as can."""
    return next(size for size in BLOCKS if group % size == 0)


def _bias(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float().contiguous()


def _levels(packed: PackedTensor) -> Tensor:
    """Return what each code of 4 bits stands for, fp32 [16]."""
    codes = torch.arange(16, dtype=torch.uint8, device="cpu")
    return packed.scheme.mode.grid.values(codes, packed.tensor_params).float().contiguous()


def _scale(packed: PackedTensor) -> Tensor:
    """[N, G] -> [tiles, G, 16], in fp16 where that is what is stored."""
    scale = packed.scale
    if scale.dtype != torch.float16:
        scale = scale.float()
    if packed.scheme.mode.grid.has_global_scale and packed.tensor_params is not None:
        scale = scale * packed.tensor_params
    return lanes(scale)
