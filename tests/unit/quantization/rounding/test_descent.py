"""Each step of the descent leaves less error than there was, on grids that the layout can hold."""

import pytest
import torch
from torch import Tensor

from studio.quantization.packing import pack, unpack
from studio.quantization.rounding import descent
from studio.quantization.rounding.descent import DAMP, descend
from studio.quantization.rounding.gptq import gptq
from studio.quantization.rounding.methods import fitted
from studio.quantization.rounding.nearest import dequantize
from studio.quantization.rounding.quantized_weight import QuantizedWeight
from studio.quantization.rounding.statistics import Statistics
from studio.quantization.scheme import Mode, Scheme

MODES = [mode for mode in Mode if (mode.is_in_blocks or mode.stored_as.has_offset) and mode.bits < 8]


def inputs() -> Statistics:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(2048, 256, generator=generator) @ torch.randn(256, 256, generator=generator)
    return Statistics(mixed.T @ mixed / len(mixed), len(mixed))


def error(rounded: QuantizedWeight, weight: Tensor, mode: Mode, statistics: Statistics) -> float:
    """Return what the descent makes less: tr(E H E^T) under the damped H."""
    hessian = statistics.hessian.clone()
    hessian.diagonal().add_(DAMP * float(hessian.diagonal().mean()))
    moved = dequantize(rounded, mode) - weight
    return float(((moved @ hessian) * moved).sum())


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_it_leaves_less_error_than_gptq(mode: Mode) -> None:
    weight = torch.randn(24, 256, generator=torch.Generator().manual_seed(1))
    scheme, statistics = Scheme.of(mode, 32), inputs()
    start = gptq(weight, scheme, fitted(weight, scheme, statistics), statistics)
    found = descend(weight, scheme, start, statistics)
    assert error(found, weight, mode, statistics) < 0.97 * error(start, weight, mode, statistics)
    stored = unpack(pack(found, scheme))
    assert dequantize(stored, mode).equal(dequantize(found, mode))


def test_it_begins_at_the_codes_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(24, 256, generator=torch.Generator().manual_seed(1))
    scheme, statistics = Scheme.of(Mode.Q4_K, 32), inputs()
    start = gptq(weight, scheme, fitted(weight, scheme, statistics), statistics)
    monkeypatch.setattr(descent, "TURNS", 0)
    assert descend(weight, scheme, start, statistics).codes.equal(start.codes)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_nothing_becomes_something_that_is_no_number(mode: Mode) -> None:
    weight = torch.randn(8, 256, generator=torch.Generator().manual_seed(2))
    weight[:4], weight[4, :64] = 0, 0
    scheme = Scheme.of(mode, 32)
    empty = inputs()
    empty.hessian[:32], empty.hessian[:, :32] = 0, 0  # channels that were given nothing
    start = gptq(weight, scheme, fitted(weight, scheme, empty), empty)
    found = dequantize(descend(weight, scheme, start, empty), mode)
    assert bool(found.isfinite().all())
    assert found[:4].count_nonzero() == 0


def test_a_weight_with_neither_blocks_nor_offsets_is_refused() -> None:
    weight, scheme = torch.randn(4, 256, generator=torch.Generator().manual_seed(3)), Scheme(Mode.INT4_ASYM, 64)
    statistics = inputs()
    with pytest.raises(ValueError, match="neither blocks nor offsets"):
        descend(weight, scheme, fitted(weight, scheme, statistics), statistics)
