"""Weights on a grid are found there again, exactly; weights on none are left to the method."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from studio.quantization.methods import Method
from studio.quantization.quantize import measure, quantize
from studio.quantization.rounding import Statistics, dequantize
from studio.quantization.rounding.regained import may_regain, regained
from studio.quantization.scheme import Mode, Scheme

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
Q4_0, Q4_1, Q8_0 = (Scheme.of(mode, 32) for mode in (Mode.Q4_0, Mode.Q4_1, Mode.Q8_0))
LEVELS = {"q4_0": (-8, 7), "q5_0": (-16, 15), "q8_0": (-127, 127), "q4_1": (0, 15), "q5_1": (0, 31)}


def on_grid(mode: str, dtype: torch.dtype, rows: int = 6, groups: int = 4, used: float = 1.0, seed: int = 0) -> Tensor:
    """Return weights that a file of this type holds, in a dtype; ``used`` is how much of the codes' range they use."""
    generator = torch.Generator().manual_seed(seed)
    low, high = LEVELS[mode]
    codes = torch.randint(low, low + max(1, int((high - low) * used)) + 1, (rows, groups, 32), generator=generator)
    if mode == "q8_0":
        codes[..., 0] = 127
    d = (0.002 + 0.01 * torch.rand(rows, groups, 1, generator=generator)).half().float()
    m = (-0.1 * torch.rand(rows, groups, 1, generator=generator)).half().float() if mode.endswith("1") else 0.0
    return (codes.float() * d + m).flatten(1).to(dtype)


def again(weight: Tensor, scheme: Scheme) -> Tensor | None:
    found = regained(weight, scheme)
    return None if found is None else dequantize(found, scheme.mode).to(weight.dtype)


@every_dtype
@pytest.mark.parametrize("mode", LEVELS)
def test_what_a_type_held_it_holds_again(mode: str, dtype: torch.dtype) -> None:
    weight = on_grid(mode, dtype)
    found = again(weight, Scheme.of(Mode(mode), 32))
    assert found is not None
    assert torch.equal(found, weight)


@every_dtype
@pytest.mark.parametrize("used", [0.1, 0.4, 0.7])
def test_codes_that_use_part_of_their_range_are_found_too(used: float, dtype: torch.dtype) -> None:
    for mode in ("q4_0", "q4_1"):
        weight = on_grid(mode, dtype, used=used, seed=1)
        found = again(weight, Scheme.of(Mode(mode), 32))
        assert found is not None, mode
        assert torch.equal(found, weight)


@pytest.mark.parametrize(("mode", "wider"), [("q4_0", "q5_0"), ("q4_0", "q4_1"), ("q4_1", "q5_1"), ("q5_0", "q8_0")])
def test_a_wider_type_holds_it_as_well(mode: str, wider: str) -> None:
    weight = on_grid(mode, torch.bfloat16)
    found = again(weight, Scheme.of(Mode(wider), 32))
    assert found is not None
    assert torch.equal(found, weight)


@every_dtype
@pytest.mark.parametrize("scheme", [Q4_0, Q4_1, Scheme(Mode.INT4_SYM, 32)], ids=str)
def test_random_weights_lie_on_no_grid(scheme: Scheme, dtype: torch.dtype) -> None:
    assert regained((0.05 * torch.randn(8, 128, generator=torch.Generator().manual_seed(0))).to(dtype), scheme) is None


def test_one_weight_beside_the_grid_is_enough() -> None:
    weight = on_grid("q4_1", torch.float16, rows=8)
    weight[7, 70] += 0.004
    assert regained(weight, Q4_1) is None


def test_a_symmetric_grid_is_one_of_int4_sym() -> None:
    scheme = Scheme(Mode.INT4_SYM, 32)
    weight = on_grid("q4_0", torch.bfloat16)
    found = again(weight, scheme)
    assert found is not None
    assert torch.equal(found, weight)
    assert regained(weight, Scheme(Mode.INT4_SYM, 64)) is None


@pytest.mark.parametrize("mode", ["q4_k", "iq4_nl", "int4_asym", "nf4", "mxfp4", "int8_asym", "fp8_e4m3", "nvfp4"])
def test_formats_of_other_grids_are_not_looked_at(mode: str) -> None:
    assert regained(torch.zeros(2, 256), Scheme.of(Mode(mode), 32)) is None


@every_dtype
def test_groups_that_are_all_one_number(dtype: torch.dtype) -> None:
    weight = torch.zeros(2, 64, dtype=dtype)
    weight[0, :32] = 0.5
    weight[1] = -0.25
    for scheme in (Q4_0, Q4_1):
        found = again(weight, scheme)
        assert found is not None
        assert torch.equal(found, weight)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_on_no_grid(bad: float) -> None:
    weight = on_grid("q4_0", torch.float16)
    weight[0, 0] = bad
    assert regained(weight, Q4_0) is None


@every_dtype
@pytest.mark.parametrize("method", Method, ids=str)
def test_every_method_keeps_it_without_error(method: Method, dtype: torch.dtype) -> None:
    weight = on_grid("q4_1", dtype)
    assert may_regain(Q4_1, method)
    found = quantize(weight, Q4_1, method=method)
    assert found.difference == 0
    assert torch.equal(found.packed.dequantize().to(dtype), weight)
    assert measure(weight, [Q4_1, Q4_0]).differences[Q4_1] == 0 < measure(weight, [Q4_0]).differences[Q4_0]


def test_rounding_to_nearest_stays_nncf_s() -> None:
    assert not may_regain(Scheme(Mode.INT4_SYM, 32), Method.NEAREST)
    assert may_regain(Scheme(Mode.INT4_SYM, 32), Method.GPTQ)


def test_least_squares_alone_does_not_find_it() -> None:
    weight = on_grid("q4_1", torch.float16)
    calibrated = Method.GPTQ.calibrated
    assert calibrated is not None
    found = dequantize(calibrated(weight.float(), Q4_1, Statistics(torch.eye(128), 128)), Mode.Q4_1)
    assert not torch.equal(found.half(), weight)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_d_and_m_are(data: Any) -> None:
    """Any fp16 step and offset, normal and not, and any codes."""
    finite = st.integers(0, 0x7BFF)
    bits = np.array([data.draw(finite), data.draw(finite) | 0x8000 * data.draw(st.booleans())], dtype=np.uint16)
    d, m = (float(x) for x in bits.view(np.float16))
    codes = torch.tensor(data.draw(st.lists(st.integers(0, 15), min_size=32, max_size=32)), dtype=torch.float32)
    weight = (codes * d + m)[None]
    dtype = data.draw(st.sampled_from(DTYPES))
    if not bool(weight.to(dtype).isfinite().all()):
        return
    found = again(weight.to(dtype), Q4_1)
    assert found is None or torch.equal(found, weight.to(dtype))
    if abs(m) < 64 * d and 2.0**-12 < d < 2.0**8 and len(codes.unique()) > 3:
        assert found is not None
