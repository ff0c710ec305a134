"""Quantizing and measuring say the same of a weight, whole or in pieces, compiled or not, in every mode."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from studio.quantization import native
from studio.quantization.quantize import base_schemes, channel_error, measure, quantize, relative
from studio.quantization.rounding import tensor_params_of
from studio.quantization.scheme import GROUP_SIZES, Mode, Scheme
from tests.small import random
from tests.steps import finish

ROWS, WIDTH = 150, 256
WEIGHT = random(ROWS, WIDTH) * (1 + torch.arange(ROWS).unsqueeze(1) / 10)
"""Rows of different size, so that pieces by themselves would share other numbers than the whole does."""
SCHEMES = [Scheme.of(mode, size) for mode in Mode for size in ((-1, 32, 64) if mode.is_grouped else (0,))]
in_every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)
PIECES = (
    pytest.param((75,), id="halves"), pytest.param((7, 20, 149), id="odd"),
    pytest.param(tuple(range(1, ROWS)), id="one_row_each", marks=pytest.mark.thorough),
)  # fmt: skip


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def _how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        for name in ("pack_nearest", "squared_errors", "channel_error"):
            nothing: Callable[..., None] = lambda *_: None  # noqa: E731
            monkeypatch.setattr(native, name, nothing)


def pieces(cuts: tuple[int, ...]) -> list[Tensor]:
    return list(torch.tensor_split(WEIGHT, cuts))


@in_every_scheme
def test_the_difference_is_that_of_the_packed_weight(scheme: Scheme) -> None:
    done = quantize(WEIGHT, scheme)
    moved = (done.packed.dequantize().double() - WEIGHT.double()).square().sum()
    assert done.difference == pytest.approx(float(moved), rel=1e-4)
    assert done.square == pytest.approx(float(WEIGHT.double().square().sum()), rel=1e-4)
    assert done.packed.shape == (ROWS, WIDTH)
    assert sum(array.nbytes for array in done.packed.arrays().values()) == scheme.nbytes((ROWS, WIDTH))


@in_every_scheme
def test_what_is_measured_is_what_quantizing_does(scheme: Scheme) -> None:
    measured, done = measure(WEIGHT, [scheme]), quantize(WEIGHT, scheme)
    assert measured.differences == {scheme: pytest.approx(done.difference, rel=1e-4)}
    assert measured.square == pytest.approx(done.square, rel=1e-4)
    assert measured.channel_error == pytest.approx(channel_error(WEIGHT), rel=1e-4)


@pytest.mark.parametrize("cuts", PIECES)
def test_the_sums_of_pieces_are_those_of_the_whole(cuts: tuple[int, ...]) -> None:
    shared = finish(tensor_params_of([WEIGHT], SCHEMES))
    first, *rest = [measure(piece, SCHEMES, shared) for piece in pieces(cuts)]
    for part in rest:
        first += part
    whole = measure(WEIGHT, SCHEMES)
    assert list(first.differences) == SCHEMES
    for scheme in SCHEMES:
        assert first.differences[scheme] == pytest.approx(whole.differences[scheme], rel=1e-4), scheme
    assert first.square == pytest.approx(whole.square, rel=1e-4)
    assert first.channel_error == pytest.approx(whole.channel_error, rel=1e-4)


@pytest.mark.parametrize("cuts", [(76,), (8, 20, 148)], ids=["halves", "unequal"])
@in_every_scheme
def test_pieces_are_packed_as_the_whole_is(scheme: Scheme, cuts: tuple[int, ...]) -> None:
    """At even rows, where the zero points of a piece begin a byte."""
    shared = finish(tensor_params_of(pieces(cuts), [scheme])).get(scheme)
    parts = [quantize(piece, scheme, shared) for piece in pieces(cuts)]
    whole = quantize(WEIGHT, scheme)
    for name, array in whole.packed.arrays().items():
        arrays = [part.packed.arrays()[name] for part in parts]
        together = (
            arrays[0] if array is whole.packed.tensor_params else torch.cat([a.view(torch.uint8) for a in arrays])
        )
        assert torch.equal(together.view(torch.uint8), array.view(torch.uint8)), name
    assert sum(part.difference for part in parts) == pytest.approx(whole.difference, rel=1e-4)


def test_measuring_in_no_scheme_still_measures_the_weight() -> None:
    measured = measure(WEIGHT, [])
    assert measured.differences == {}
    assert measured.square == pytest.approx(float(WEIGHT.double().square().sum()), rel=1e-4)


def test_a_scheme_asked_for_is_answered_in_the_order_asked() -> None:
    asked = list(reversed(SCHEMES))
    assert list(measure(WEIGHT, asked).differences) == asked


@pytest.mark.parametrize("width", [1, 32, 96, 100, 256])
def test_base_schemes_are_those_that_fit(width: int) -> None:
    found = base_schemes(width, GROUP_SIZES)
    assert len(set(found)) == len(found)
    assert all(scheme.fits(width) for scheme in found)
    fitting = sum(size == -1 or width % size == 0 for size in GROUP_SIZES)
    assert len(found) == 2 + 3 * fitting


def test_an_error_is_relative_to_the_weight() -> None:
    assert relative(1.0, 4.0) == 0.5
    assert relative(0.0, 0.0) == 0.0
