"""Weights laid out for tensor cores stand for what they stood for, read bit by bit as ``weight.cuh`` reads them."""

import pytest
import torch
from torch import Tensor

from studio.quantization.packing import pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import WHOLE_CHANNEL, Mode, Scheme
from studio.runtime.native.fragments import (
    ROWS,
    STEP,
    TAKEN,
    Fragments,
    Kind,
    can_join,
    check,
    fragments_of,
    steps_of,
    takes,
)  # fmt: skip

CPU = torch.device("cpu")
EXCESS = {Kind.INTEGER4: (24.0, 264.0), Kind.INTEGER3: (20.0, 260.0)}
EVERY = [
    *(Scheme(mode, sizes[0]) for mode in Mode if len(sizes := mode.stored_as.group_sizes) == 1),
    *(Scheme(mode, size) for mode in Mode if mode.is_grouped for size in (WHOLE_CHANNEL, 16, 32, 48, 64, 128)),
]
SCHEMES = [scheme for scheme in EVERY if takes(scheme)]


def both(low: Tensor, high: Tensor) -> Tensor:
    return low & 0xFFFF | (high & 0xFFFF) << 16


def pairs(kind: Kind, words: Tensor, step: int, levels: Tensor | None) -> list[Tensor]:
    """Return a step's four pairs of 16-bit numbers, of 32-bit ``words`` [..., 4]."""
    if kind in (Kind.HALF, Kind.BF16):
        return list(words.unbind(-1))
    if kind in (Kind.INTEGER4, Kind.INTEGER3):
        word = words[..., step]
        turned = (word & 0x00FF00FF) << 8 | word >> 8 & 0x00FF00FF
        return [part & mask | bits for part in (word, turned) for mask, bits in ((0x03C003C0, 0x4C004C00),
                                                                                 (0x003C003C, 0x5C005C00))]  # fmt: skip
    if kind is Kind.INTEGER2:
        return [words[..., step // 2] >> (2 * i + 8 * (step & 1)) & 0x00030003 | 0x64006400 for i in range(4)]
    if kind is Kind.INTEGER8:
        halves = [words[..., 2 * step + i // 2] >> 16 * (i & 1) for i in range(4)]
        return [both(half & 0xFF | 0x6400, half >> 8 & 0xFF | 0x6400) for half in halves]
    if kind is Kind.LEVELS4:
        assert levels is not None
        table = levels[0].long() | levels[1].long() << 8
        codes = [words[..., step] >> 4 * i & 0xF for i in range(8)]
        return [both(table[codes[2 * i]], table[codes[2 * i + 1]]) for i in range(4)]
    if kind is Kind.FLOAT4:
        signs = [words[..., step] << (12 - 4 * i) for i in range(4)]
        return [sign & 0x80008000 | sign >> 3 & 0x0E000E00 for sign in signs]
    halves = [words[..., 2 * step + i // 2] >> 16 * (i & 1) for i in range(4)]
    high = [both((half & 0xFF) << 8, half & 0xFF00) for half in halves]
    return [each & 0x80008000 | (each & 0x7F007F00) >> 1 for each in high]


def numbers(fragments: Fragments) -> Tensor:
    """Return the weights [tiles * 16, K], in the order of their rows there."""
    kind, per, steps = fragments.kind, fragments.per, steps_of(fragments.kind)
    tiles, blocks = fragments.codes.shape[:2]
    words = fragments.codes.long() & 0xFFFFFFFF
    made = torch.zeros(tiles, ROWS, blocks * steps * STEP, dtype=torch.float64)
    group, lane = torch.arange(32) // 4, torch.arange(32) % 4
    dtype = torch.bfloat16 if kind is Kind.BF16 else torch.float16
    for step in range(steps):
        for i, pair in enumerate(pairs(kind, words, step, fragments.levels)):
            row, below = group + 8 * (i & 1), i & 1
            first = (torch.arange(blocks)[:, None] * steps + step // per * per) * STEP
            first = first + 4 * (lane * per + step % per) + i // 2 * 2
            span = torch.arange(blocks)[:, None] * (steps // per) + step // per
            scale, zero = torch.ones(()), torch.tensor(EXCESS.get(kind, (0.0, 0.0))[below])
            if fragments.scale is not None:
                record = fragments.scale[:, :1] if fragments.is_whole else fragments.scale[:, span.flatten()]
                record = record.double()[:, :, group]
                scale = record[..., below] * fragments.factor
                zero = record[..., 2 + below] if fragments.has_zero else zero
            middle = {Kind.INTEGER2: 1026.0, Kind.INTEGER8: 1152.0}.get(kind, 0.0)
            for n in range(2):
                bits = pair >> 16 * n & 0xFFFF
                value = bits.to(torch.int32).to(torch.int16).view(dtype).double() - middle
                made[:, row, first + n] = (value - zero) * scale
    return made.flatten(0, 1)[:, : fragments.width]


def rows_of(fragments: Fragments) -> Tensor:
    """Return the same in the order of the weight."""
    found = numbers(fragments)
    if not fragments.is_paired:
        return found[: fragments.rows]
    halves = found.view(-1, 2, ROWS // 2, fragments.width).transpose(0, 1).flatten(1, 2)
    return halves[:, : fragments.rows // 2].flatten(0, 1)


@pytest.mark.parametrize("is_paired", [False, True], ids=["plain", "paired"])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_scheme_stands_for_the_same(scheme: Scheme, is_paired: bool) -> None:
    width = {WHOLE_CHANNEL: 200, 48: 144}.get(scheme.group_size, 384)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(rows, width, generator=generator) for rows in ((12, 12) if is_paired else (20,))]
    packed = [pack(round_to_nearest(weight, scheme), scheme) for weight in weights]
    if len(packed) > 1 and not can_join(*packed):
        pytest.skip("what a tensor shares keeps it from another's tiles")
    expected = torch.cat([each.dequantize() for each in packed]).double()
    found = rows_of(fragments_of(packed, [None] * len(packed), CPU, is_paired))
    bound = 2.0**-11 if scheme.mode is Mode.NF4 else 2.0**-22  # its levels are rounded to fp16
    assert float((found - expected).abs().max() / expected.abs().max()) <= bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_floats_stay_as_they_are(dtype: torch.dtype) -> None:
    weight = torch.randn(24, 72, generator=torch.Generator().manual_seed(0)).to(dtype)
    bias = torch.arange(24.0)
    fragments = fragments_of([weight], [bias], CPU, True)
    assert torch.equal(rows_of(fragments), weight.double())
    assert fragments.bias is not None
    assert fragments.bias.tolist() == [*range(8), *range(12, 20), *range(8, 12), *[0] * 4, *range(20, 24), *[0] * 4]


@pytest.mark.parametrize(
    ("codes", "bits", "kind"),
    [
        (Codes.ASYMMETRIC, 3, Kind.INTEGER3),  # nothing says how far unpacked numbers are above zero points
        (Codes.ASYMMETRIC, 5, Kind.INTEGER8),  # codes would be widened, zero points would not
        (Codes.SYMMETRIC, 3, Kind.INTEGER4),
        (Codes.SYMMETRIC, 6, Kind.INTEGER4),
        (Codes.OTHER, 4, Kind.LEVELS4),
        (Codes.E2M1, 4, Kind.FLOAT8),
        (Codes.SYMMETRIC, 8, Kind.HALF),
    ],
)
def test_what_would_be_read_as_other_numbers_is_not_taken(codes: Codes, bits: int, kind: Kind) -> None:
    with pytest.raises(ValueError, match=f"{kind.name} cannot be {codes.name} of {bits} bits"):
        check({**TAKEN, (codes, bits): kind})


def test_every_sort_that_is_taken_has_a_format_that_is_tried() -> None:
    assert {(scheme.mode.grid.codes, scheme.mode.bits) for scheme in SCHEMES} == TAKEN.keys()
