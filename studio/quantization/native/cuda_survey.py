"""Weights measured on a CUDA device: every scheme of one group size in one launch. Imported only where Triton is.

Knows no model.
"""

import logging
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from studio.quantization.native.triton_survey import survey_groups
from studio.quantization.rounding.integer import asymmetric, symmetric
from studio.quantization.rounding.levels import CB4, NF4
from studio.quantization.rounding.quantized_weight import NumberFormat
from studio.quantization.scheme import WHOLE_CHANNEL, Scheme

LOG = logging.getLogger(__name__)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
SYMMETRIC = {symmetric(bits): 2.0 ** (bits - 1) for bits in (8, 5, 4, 3, 2)}
"""Half the range of the codes."""
ASYMMETRIC = {asymmetric(bits): 2.0**bits - 1 for bits in (8, 4)}
"""The largest code."""
LEVELS: dict[NumberFormat, float] = {NF4: 0, CB4: 1}
"""The place in the kernel's CODEBOOKS."""
KINDS: tuple[dict[NumberFormat, float], ...] = (SYMMETRIC, ASYMMETRIC, LEVELS)
"""The grids that the kernel knows, in its order, where their scales are stored as fp16; all others are torch's."""
TILE, WARPS = 512, 2
"""Weights that a program holds at once, in how many warps."""


def squared_errors(weight: Tensor, schemes: Sequence[Scheme]) -> tuple[dict[Scheme, float], float, float] | None:
    """Return ‖W - Ŵ‖² of those of ``schemes`` that the kernel measures, ‖W‖², and the largest channel's mean squared
    int8_asym error; None where there is no kernel for this weight.

    ``weight`` [N, K] on CUDA, fp16, bf16 or fp32; every group divides K.
    """
    if not _takes(weight) or not _works(weight.device):
        return None
    return _measured(weight, schemes)


def channel_error(weight: Tensor) -> float | None:
    """Return the largest channel's mean squared int8_asym error of ``weight`` [N, K], NaN where one is."""
    measured = squared_errors(weight, ())
    return None if measured is None else measured[2]


def _takes(weight: Tensor) -> bool:
    return weight.dtype in DTYPES and weight.stride(-1) == 1 and weight.numel() > 0


@cache
def _works(device: torch.device) -> bool:
    """Return whether Triton can compile for ``device``: it needs a C compiler, and knows only newer GPUs."""
    try:
        _measured(torch.ones(1, 32, dtype=torch.float32, device=device), ())
    except Exception as error:  # whatever it is, torch can do the work
        LOG.info("weights on %s are measured by torch instead of compiled code: %s", device, error)
        return False
    return True


def _measured(weight: Tensor, schemes: Sequence[Scheme]) -> tuple[dict[Scheme, float], float, float]:
    """One sum for each program and scheme in fp32, added in fp64; the only wait for the device is at the end."""
    rows, width = weight.shape
    by_size: dict[int, list[Scheme]] = {width: []}  # whole rows are always measured: they give squares and channels
    stored = [scheme for scheme in schemes if scheme.mode.stored_as.scale_dtype == "F16"]
    for kind in KINDS:
        for scheme in (scheme for scheme in stored if scheme.mode.grid in kind):
            by_size.setdefault(width if scheme.group_size == WHOLE_CHANNEL else scheme.group_size, []).append(scheme)
    programs = max(_programs(rows, width, size) for size in by_size)
    lines = sum(map(len, by_size.values())) + 1
    device = weight.device
    sums = torch.zeros(lines, -(-programs // 4) * 4, dtype=torch.float32, device=device)  # every line aligned
    means = torch.empty(rows, dtype=torch.float32, device=device)
    line = 0
    with torch.cuda.device(device):
        for size, members in by_size.items():
            _launch(weight, size, members, sums[line:], means)
            line += len(members) + (size == width)
    *errors, worst = torch.cat((sums.sum(1, dtype=torch.float64), means.max().double().unsqueeze(0))).tolist()
    square = errors.pop(len(by_size[width]))
    order = (scheme for members in by_size.values() for scheme in members)
    return dict(zip(order, errors, strict=True)), square, worst


def _launch(weight: Tensor, size: int, schemes: list[Scheme], sums: Tensor, means: Tensor) -> None:
    """Fill a line of ``sums`` for each of ``schemes``, all of groups of ``size``, and where these are rows one of
    squares, and ``means``."""
    rows, width = weight.shape
    symmetric, asymmetric, levels = (tuple(kind[s.mode.grid] for s in schemes if s.mode.grid in kind) for kind in KINDS)
    block = _block(size)
    survey_groups[(_programs(rows, width, size),)](
        weight, weight.stride(0), size, width // size, rows * (width // size), sums, sums.stride(0), means,
        symmetric, asymmetric, levels, size == width, TILE // block, block, num_warps=WARPS,
        enable_fp_fusion=False,  # but where the kernel asks for it: torch does not fuse either
    )  # fmt: skip


def _block(size: int) -> int:
    """Return how many columns of a group a program holds at once, a power of two."""
    return 1 << min((size - 1).bit_length(), TILE.bit_length() - 1)


def _programs(rows: int, width: int, size: int) -> int:
    """Return how many programs it takes for all groups of ``size``."""
    return -(-rows * (width // size) // (TILE // _block(size)))
