"""The Triton kernel of ``cuda.py``: groups of a weight, rounded and measured. Knows nothing of schemes.

The arithmetic is that of ``studio/rounding``, operation by operation, so that the codes are the same; only the sums
run in another order.
"""

# mypy: ignore-errors
# (Triton has no stubs, and what it compiles is a language of its own.)

# ruff: noqa: N803
# (Constants have capitals, as everywhere in Triton.)

import torch
import triton
import triton.language as tl

from studio.quantization.rounding.levels import CB4_LEVELS, NF4_LEVELS, tables
from studio.quantization.rounding.quantized_weight import EPSILON as SMALLEST


def with_bounds(levels):
    """Return the sixteen levels and the fifteen bounds between them, rounded to fp32."""
    return tuple(torch.cat(tables(levels, torch.device("cpu"))).tolist())


EPSILON = tl.constexpr(SMALLEST)
CODEBOOKS = tl.constexpr((with_bounds(NF4_LEVELS), with_bounds(CB4_LEVELS)))


@triton.jit
def divide(x, scale, inverse):
    """x / scale correctly rounded, ``inverse`` being 1 / scale: Markstein's two corrections, a third of div.rn's cost.

    Exact but for quotients far below any that is not rounded to zero.
    """
    q = x * inverse
    q = tl.fma(tl.fma(-q, scale, x), inverse, q)
    return tl.fma(tl.fma(-q, scale, x), inverse, q)


@triton.jit
def rounded(x):
    """Half to even; exact below 2^22, and no code is that large."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def tile(weight, start, column, size, is_group):
    """Columns of some groups, fp32 [GROUPS, BLOCK]; zero beyond their end, which every format keeps as it is."""
    mask = is_group[:, None] & (column < size)[None, :]
    return tl.load(weight + start[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def symmetric(low, high, half):
    scale = tl.where(tl.abs(low) >= high, tl.abs(low), -high) * (1.0 / half)  # a power of two: exact
    return tl.where(tl.abs(scale) < EPSILON, EPSILON, scale)


@triton.jit
def asymmetric(low, high, top):
    low, high = tl.minimum(low, 0.0), tl.maximum(high, 0.0)
    scale = tl.maximum(tl.div_rn(high - low, tl.full(high.shape, top, tl.float32)), EPSILON)
    zero = -rounded(tl.div_rn(low, scale))
    return scale, tl.minimum(tl.maximum(zero, 0.0), top)


@triton.jit
def integers(
    weight, start, size, is_group, scale, kept, zero, LEAST: tl.constexpr, MOST: tl.constexpr,
    GROUPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Squared differences of each group from its codes times ``kept``, fp32 [GROUPS]."""
    sums = tl.zeros((GROUPS, BLOCK), tl.float32)
    inverse = tl.div_rn(tl.full(scale.shape, 1.0, tl.float32), scale)
    for i in range(0, size, BLOCK):
        x = tile(weight, start, i + tl.arange(0, BLOCK), size, is_group)
        q = rounded(divide(x, scale[:, None], inverse[:, None]) + zero[:, None])
        q = tl.minimum(tl.maximum(q, LEAST), MOST)
        d = (q - zero[:, None]) * kept[:, None] - x
        sums = tl.fma(d, d, sums)
    return tl.sum(sums, 1)


@triton.jit
def nearest_levels(
    weight, start, size, is_group, low, high, CODEBOOK: tl.constexpr,
    GROUPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same for sixteen levels, after which come the bounds between them: above one, the next level is nearest."""
    levels: tl.constexpr = CODEBOOKS[CODEBOOK]
    largest = tl.maximum(tl.abs(low), tl.abs(high))
    scale = tl.maximum(tl.div_rn(largest, tl.full(largest.shape, levels[15], tl.float32)), EPSILON)
    kept = scale.to(tl.float16).to(tl.float32)
    sums = tl.zeros((GROUPS, BLOCK), tl.float32)
    inverse = tl.div_rn(tl.full(scale.shape, 1.0, tl.float32), scale)
    for i in range(0, size, BLOCK):
        x = tile(weight, start, i + tl.arange(0, BLOCK), size, is_group)
        normal = divide(x, scale[:, None], inverse[:, None])
        value = tl.full((GROUPS, BLOCK), levels[0], tl.float32)
        for j in tl.static_range(15):
            value = tl.where(normal > levels[16 + j], levels[j + 1], value)
        d = value * kept[:, None] - x
        sums = tl.fma(d, d, sums)
    return tl.sum(sums, 1)


@triton.jit
def squares(weight, start, size, is_group, GROUPS: tl.constexpr, BLOCK: tl.constexpr):
    sums = tl.zeros((GROUPS, BLOCK), tl.float32)
    for i in range(0, size, BLOCK):
        x = tile(weight, start, i + tl.arange(0, BLOCK), size, is_group)
        sums = tl.fma(x, x, sums)
    return tl.sum(sums, 1)


@triton.jit(do_not_specialize=["per_row", "count", "programs"])
def survey_groups(
    weight, stride, size, per_row, count, sums, programs, means,
    SYMMETRIC: tl.constexpr, ASYMMETRIC: tl.constexpr, LEVELS: tl.constexpr,
    IS_ROW: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Measure GROUPS of the ``count`` groups of ``size`` weights, ``per_row`` in each row of ``stride`` weights.

    sums: fp32 [candidates, programs], a line for each half-range of SYMMETRIC, top of ASYMMETRIC and place in CODEBOOKS
    of LEVELS, then, where a group IS_ROW, one of the weights' squares; ``means`` fp32 [count] is then each row's mean
    squared int8_asym error with the exact scale.
    """
    group = tl.program_id(0).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)
    is_group = group < count
    start = (group // per_row) * stride + (group % per_row) * size
    lows = tl.full((GROUPS, BLOCK), float("inf"), tl.float32)
    highs = tl.full((GROUPS, BLOCK), float("-inf"), tl.float32)
    for i in range(0, size, BLOCK):
        column = i + tl.arange(0, BLOCK)
        x = tile(weight, start, column, size, is_group)
        within = (column < size)[None, :]
        lows = tl.minimum(lows, tl.where(within, x, float("inf")))
        highs = tl.maximum(highs, tl.where(within, x, float("-inf")))
    low, high = tl.min(lows, 1), tl.max(highs, 1)
    none = tl.zeros((GROUPS,), tl.float32)

    out = sums + tl.program_id(0)
    for c in tl.static_range(len(SYMMETRIC)):
        scale = symmetric(low, high, SYMMETRIC[c])
        kept = scale.to(tl.float16).to(tl.float32)
        d = integers(weight, start, size, is_group, scale, kept, none, -SYMMETRIC[c], SYMMETRIC[c] - 1, GROUPS, BLOCK)
        tl.store(out, tl.sum(d, 0))
        out += programs
    for c in tl.static_range(len(ASYMMETRIC)):
        scale, zero = asymmetric(low, high, ASYMMETRIC[c])
        kept = scale.to(tl.float16).to(tl.float32)
        d = integers(weight, start, size, is_group, scale, kept, zero, 0.0, ASYMMETRIC[c], GROUPS, BLOCK)
        tl.store(out, tl.sum(d, 0))
        out += programs
    for c in tl.static_range(len(LEVELS)):
        d = nearest_levels(weight, start, size, is_group, low, high, LEVELS[c], GROUPS, BLOCK)
        tl.store(out, tl.sum(d, 0))
        out += programs
    if IS_ROW:
        tl.store(out, tl.sum(squares(weight, start, size, is_group, GROUPS, BLOCK), 0))
        scale, zero = asymmetric(low, high, 255.0)
        d = integers(weight, start, size, is_group, scale, scale, zero, 0.0, 255.0, GROUPS, BLOCK)
        tl.store(means + group, d / size, mask=is_group)
