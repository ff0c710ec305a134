"""Round to nearest, compiled: rounding, packing and measuring in one pass over the rows (``rounding.c``).

Knows no model, and of formats only those it names.
"""

import ctypes
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from studio.base.compiler import library
from studio.base.pointers import address, rows_at
from studio.quantization.packing import PackedTensor, pack_zero_points
from studio.quantization.rounding.float4 import FP4, MAGNITUDES, MXFP4
from studio.quantization.rounding.integer import asymmetric, symmetric
from studio.quantization.rounding.levels import CB4, CB4_LEVELS, NF4, NF4_LEVELS, tables
from studio.quantization.rounding.quantized_weight import NumberFormat
from studio.quantization.scheme import Mode, Scheme

SOURCE = Path(__file__).with_name("rounding.c")
DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}
SYM, ASYM, LEVELS = 0, 1, 2
PACKED = {
    symmetric(8): SYM, asymmetric(8): ASYM, symmetric(4): SYM, asymmetric(4): ASYM, NF4: LEVELS, CB4: LEVELS,
}  # fmt: skip
"""The grids that can be rounded and packed, where their scales are stored as fp16."""
MEASURED = {
    **PACKED, symmetric(5): SYM, symmetric(3): SYM, symmetric(2): SYM, FP4: LEVELS, MXFP4: LEVELS,
}  # fmt: skip
"""Those that can be measured; all other grids are torch's."""
SCALE_DTYPES = {MXFP4: "F8_E8M0"}
"""How the C code stores a scale before it measures; the others are fp16."""
FLOAT_SCALES = {FP4: 1, MXFP4: 2}
"""How it finds the scale of a float format."""
FP4_LEVELS = (*(-m for m in reversed(MAGNITUDES)), *MAGNITUDES)
T = TypeVar("T")
LEVELS_AND_BOUNDS = 31
SHARE = 1 << 16
"""Weights in one call of C code: fewer, and calling costs more than it does."""


def pack_nearest(weight: Tensor, scheme: Scheme) -> tuple[PackedTensor, float, float] | None:
    """Return ``weight`` [N, K] packed, ‖W - Ŵ‖² and ‖W‖²; None for what the compiled code does not do.

    Ŵ is what the stored numbers stand for. The sums are NaN or infinite where a weight is.
    """
    lib = library(SOURCE)
    grid = scheme.mode.grid
    kind = PACKED[grid] if packs(scheme.mode) else None
    if lib is None or kind is None or not _takes(weight):
        return None
    rows, width = weight.shape
    groups, bits = scheme.groups(width), scheme.mode.bits
    table = _levels(grid if kind == LEVELS else NF4)
    levels = ctypes.c_void_p(address(table, torch.float32, LEVELS_AND_BOUNDS))
    codes = torch.empty(rows, width if bits == 8 else -(-width // 2), dtype=torch.uint8, device="cpu")
    scale = torch.empty(rows, groups, dtype=torch.float16, device="cpu")
    zeros = torch.empty(rows, groups, dtype=torch.uint8, device="cpu") if kind == ASYM else None

    def work(start: int, stop: int) -> tuple[float, float]:
        sums = (ctypes.c_double * 2)()
        _checked(
            lib.pack_rows(
                *_rows(weight, start, stop), kind, bits, ctypes.c_long(width // groups), levels,
                _at(codes, start, stop), _at(scale, start, stop),
                None if zeros is None else _at(zeros, start, stop), sums,
            )
        )  # fmt: skip
        return sums[0], sums[1]

    done = _over_rows(work, (rows, width))
    if bits == 8 and kind == SYM:
        codes = codes.view(torch.int8)
    if zeros is not None:
        zeros = pack_zero_points(zeros, scheme.mode.stored_as.zero_point_bits)
    packed = PackedTensor(scheme, (rows, width), codes, scale, zeros)
    return packed, sum(a for a, _ in done), sum(b for _, b in done)


def measures(mode: Mode) -> bool:
    """Return whether the compiled code rounds in this mode and stores its scales as the mode does."""
    return mode.grid in MEASURED and mode.stored_as.scale_dtype == SCALE_DTYPES.get(mode.grid, "F16")


def packs(mode: Mode) -> bool:
    """Return whether the compiled code packs too what it rounds in this mode."""
    return mode.grid in PACKED and measures(mode)


class Candidate(ctypes.Structure):
    """A scheme as the C code takes it."""

    _fields_ = (
        ("kind", ctypes.c_int32), ("half", ctypes.c_float), ("size", ctypes.c_int64),
        ("levels", ctypes.c_float * LEVELS_AND_BOUNDS), ("scale", ctypes.c_int32),
    )  # fmt: skip


def squared_errors(weight: Tensor, schemes: Sequence[Scheme]) -> tuple[dict[Scheme, float], float, float] | None:
    """Return ‖W - Ŵ‖² of those of ``schemes`` that the compiled code measures, ‖W‖², and the largest channel's mean
    squared int8_asym error; None where there is no compiled code.

    ``weight`` [N, K]; every group divides K.
    """
    lib = library(SOURCE)
    if lib is None or not _takes(weight):
        return None
    rows, width = weight.shape
    measured = [scheme for scheme in schemes if measures(scheme.mode)]
    candidates = (Candidate * max(1, len(measured)))(*(_candidate(scheme, width) for scheme in measured))

    def work(start: int, stop: int) -> tuple[list[float], float, float]:
        sums, square, worst = (ctypes.c_double * max(1, len(measured)))(), ctypes.c_double(0), ctypes.c_float(0)
        results = sums, ctypes.byref(square), ctypes.byref(worst)
        _checked(lib.survey_rows(*_rows(weight, start, stop), candidates, ctypes.c_long(len(measured)), *results))
        return list(sums), square.value, worst.value

    done = _over_rows(work, (rows, width))
    sums = {scheme: sum(part[0][i] for part in done) for i, scheme in enumerate(measured)}
    return sums, sum(part[1] for part in done), _largest(part[2] for part in done)


@cache
def _candidate(scheme: Scheme, width: int) -> Candidate:
    size = width // scheme.groups(width)
    grid = scheme.mode.grid
    kind = MEASURED[grid]
    levels = (ctypes.c_float * LEVELS_AND_BOUNDS)()
    if kind == LEVELS:
        levels = (ctypes.c_float * LEVELS_AND_BOUNDS)(*_levels(grid).tolist())
    return Candidate(kind, float(2 ** (scheme.mode.bits - 1)), size, levels, FLOAT_SCALES.get(grid, 0))


def channel_error(weight: Tensor) -> float | None:
    """Return the largest channel's mean squared int8_asym error of ``weight`` [N, K], NaN where one is."""
    lib = library(SOURCE)
    if lib is None or not _takes(weight):
        return None

    def work(start: int, stop: int) -> float:
        worst = ctypes.c_float(0)
        _checked(lib.score_rows(*_rows(weight, start, stop), ctypes.byref(worst)))
        return worst.value

    return _largest(_over_rows(work, weight.shape))


def _largest(values: Iterable[float]) -> float:
    """Return the largest, or NaN where one is."""
    numbers = list(values)
    return next((x for x in numbers if x != x), max(numbers, default=0.0))


def _takes(weight: Tensor) -> bool:
    return weight.dtype in DTYPES and weight.device.type == "cpu" and weight.stride(-1) == 1 and weight.numel() > 0


def _rows(weight: Tensor, start: int, stop: int) -> tuple[object, ...]:
    """Return the C arguments for rows ``start:stop``: where, dtype, count, width, distance of rows."""
    long = ctypes.c_long
    return (
        _at(weight, start, stop),
        DTYPES[weight.dtype],
        long(stop - start),
        long(weight.shape[1]),
        long(weight.stride(0)),
    )


def _at(tensor: Tensor, start: int, stop: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(rows_at(tensor, start, stop))


def _checked(failed: int) -> None:
    if failed:
        raise MemoryError


def _over_rows(work: Callable[[int, int], T], shape: Sequence[int]) -> list[T]:
    """Return ``work(start, stop)`` of the rows of [N, K] in shares, all cores at it: C code holds no lock of Python's.

    The shares are small and taken one by one, so that a core that has other work too holds nobody up; the caller takes
    them as well, so that nothing waits for a thread to wake.
    """
    rows, width = shape
    step = max(1, SHARE // width)
    starts = range(0, rows, step)
    done: dict[int, T] = {}
    left = iter(starts)

    def help_out() -> None:
        for start in left:
            done[start] = work(start, min(start + step, rows))

    helpers = [_helpers().submit(help_out) for _ in range(min(_cores(), len(starts)) - 1)]
    help_out()
    for helper in helpers:
        if not helper.cancel():  # it has begun
            helper.result()
    return [done[start] for start in starts]


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _cores() - 1))


os.register_at_fork(after_in_child=_helpers.cache_clear)  # which has none of the threads


@cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _levels(grid: NumberFormat) -> Tensor:
    """Return the sixteen levels and the fifteen bounds between them, fp32 [31]."""
    if grid in (NF4, CB4):
        levels, bounds = tables(NF4_LEVELS if grid is NF4 else CB4_LEVELS, torch.device("cpu"))
        return torch.cat((levels, bounds)).contiguous()
    # E2M1: halfway goes to the even mantissa, so some bounds belong to the level above them.
    levels = torch.tensor(FP4_LEVELS, dtype=torch.float32, device="cpu")
    bounds = (levels[1:] + levels[:-1]) / 2
    evens = [index % 2 == 0 for index in (*reversed(range(8)), *range(8))]
    even = torch.tensor(evens, dtype=torch.bool, device="cpu")
    lower = torch.nextafter(bounds, torch.full((), -torch.inf, dtype=torch.float32, device="cpu"))
    return torch.cat((levels, torch.where(even[1:], lower, bounds))).contiguous()
