"""Triton's side of a test: the kernel's division, of numbers side by side."""

import triton
import triton.language as tl

from studio.quantization.native.triton_survey import divide


@triton.jit
def divide_all(top, under, quotient, BLOCK: tl.constexpr):  # noqa: N803 - Triton's way to write constants
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x, scale = tl.load(top + at), tl.load(under + at)
    inverse = tl.div_rn(tl.full((BLOCK,), 1.0, tl.float32), scale)
    tl.store(quotient + at, divide(x, scale, inverse))
