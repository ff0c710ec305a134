"""Round to nearest, compiled: rounding, packing and measuring in one pass over the rows (``rounding.c``)."""

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
from studio.quantization.packing import PackedTensor, pack_bits
from studio.quantization.rounding.float4 import MAGNITUDES
from studio.quantization.rounding.levels import CB4_LEVELS, NF4_LEVELS, tables
from studio.quantization.scheme import Mode, Scheme

SOURCE = Path(__file__).with_name("rounding.c")
DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}
SYM, ASYM, LEVELS = 0, 1, 2
KINDS = {
    Mode.INT8_SYM: SYM,
    Mode.INT8_ASYM: ASYM,
    Mode.INT4_SYM: SYM,
    Mode.INT4_ASYM: ASYM,
    Mode.NF4: LEVELS,
    Mode.CB4: LEVELS,
}
FP4_LEVELS = (*(-m for m in reversed(MAGNITUDES)), *MAGNITUDES)
MEASURED = {**KINDS, Mode.INT5_SYM: SYM, Mode.INT3_SYM: SYM, Mode.INT2_SYM: SYM, Mode.FP4: LEVELS, Mode.MXFP4: LEVELS}
"""What can be measured; a part of it can be packed too."""
FLOAT_SCALES = {Mode.FP4: 1, Mode.MXFP4: 2}
"""How the C code finds the scale of a float format."""
T = TypeVar("T")
LEVELS_AND_BOUNDS = 31
SHARE = 1 << 16
"""Weights in one call of C code: fewer, and calling costs more than it does."""


def pack_nearest(weight: Tensor, scheme: Scheme) -> tuple[PackedTensor, float, float] | None:
    """Return ``weight`` [N, K] packed, ‖W - Ŵ‖² and ‖W‖²; None for what the compiled code does not do.

    Ŵ is what the stored numbers stand for. The sums are NaN or infinite where a weight is.
    """
    lib = library(SOURCE)
    kind = KINDS.get(scheme.mode)
    if lib is None or kind is None or not _takes(weight):
        return None
    rows, width = weight.shape
    groups, bits = scheme.groups(width), scheme.mode.bits
    table = _levels(Mode.CB4 if scheme.mode is Mode.CB4 else Mode.NF4)
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
    if bits == 4 and zeros is not None:
        zeros = pack_bits(zeros.flatten(), 4)
    packed = PackedTensor(scheme, (rows, width), codes, scale, zeros)
    return packed, sum(a for a, _ in done), sum(b for _, b in done)


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
    measured = [scheme for scheme in schemes if scheme.mode in MEASURED]
    candidates = (Candidate * max(1, len(measured)))(*(_candidate(scheme, width) for scheme in measured))

    def work(start: int, stop: int) -> tuple[list[float], float, float]:
        sums, square, worst = (ctypes.c_double * max(1, len(measured)))(), ctypes.c_double(0), ctypes.c_float(0)
        found = sums, ctypes.byref(square), ctypes.byref(worst)
        _checked(lib.survey_rows(*_rows(weight, start, stop), candidates, ctypes.c_long(len(measured)), *found))
        return list(sums), square.value, worst.value

    done = _over_rows(work, (rows, width))
    sums = {scheme: sum(part[0][i] for part in done) for i, scheme in enumerate(measured)}
    return sums, sum(part[1] for part in done), _largest(part[2] for part in done)


@cache
def _candidate(scheme: Scheme, width: int) -> Candidate:
    size = width // scheme.groups(width)
    kind = MEASURED[scheme.mode]
    levels = (ctypes.c_float * LEVELS_AND_BOUNDS)()
    if kind == LEVELS:
        levels = (ctypes.c_float * LEVELS_AND_BOUNDS)(*_levels(scheme.mode).tolist())
    return Candidate(kind, float(2 ** (scheme.mode.bits - 1)), size, levels, FLOAT_SCALES.get(scheme.mode, 0))


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
def _levels(mode: Mode) -> Tensor:
    """Return the sixteen levels and the fifteen bounds between them, fp32 [31]."""
    if mode in (Mode.NF4, Mode.CB4):
        levels, bounds = tables(NF4_LEVELS if mode is Mode.NF4 else CB4_LEVELS, torch.device("cpu"))
        return torch.cat((levels, bounds)).contiguous()
    # E2M1: halfway goes to the even mantissa, so some bounds belong to the level above them.
    levels = torch.tensor(FP4_LEVELS, dtype=torch.float32, device="cpu")
    bounds = (levels[1:] + levels[:-1]) / 2
    evens = [index % 2 == 0 for index in (*reversed(range(8)), *range(8))]
    even = torch.tensor(evens, dtype=torch.bool, device="cpu")
    lower = torch.nextafter(bounds, torch.full((), -torch.inf, dtype=torch.float32, device="cpu"))
    return torch.cat((levels, torch.where(even[1:], lower, bounds))).contiguous()
