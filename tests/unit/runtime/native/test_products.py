"""The compiled products are those of float64 on what the packed weight stands for, within derived bounds."""

import math
import platform

import pytest
import torch
from torch import Tensor

from studio.base.compiler import FUSED_FLAGS, library
from studio.quantization.ggml.formats import BLOCK_FORMATS
from studio.quantization.packing import PackedTensor, pack, unpack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import WHOLE_CHANNEL, Mode, Scheme
from studio.runtime.kernels import PackedLinear, product_for
from studio.runtime.kernels.compiled import CompiledProduct
from studio.runtime.native import products
from studio.runtime.native.products import SOURCE, decoding, look_up, multiply
from studio.runtime.native.tiles import Kind, Tiles
from studio.runtime.native.tiling import takes, tiles_of, tiles_of_floats

pytestmark = pytest.mark.skipif(decoding() is None, reason="needs a C compiler")

SIZES = (16, 32, 64, 96, 192, WHOLE_CHANNEL)
SCHEMES = [
    str(scheme) for mode in Mode for scheme in (dict.fromkeys(Scheme.of(mode, size) for size in SIZES)) if takes(scheme)
]
SHAPES = [(576, 192), (50, 384), (1, 192), (17, 576), (1, 256), (33, 768)]
"""Rows that fill tiles and fours of them, and rows that do not."""
ODD_WIDTHS = [(20, 49), (7, 5), (33, 130)]
"""For one scale a row alone."""
EPSILON = 2.0**-24
"""Half of the last place of fp32: what one operation errs by at most, relative to its result."""


def packed(scheme: str, shape: tuple[int, int]) -> PackedTensor:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.05 + 0.01
    return pack(round_to_nearest(weight, Scheme.parse(scheme)), Scheme.parse(scheme))


def inputs(count: int, width: int) -> Tensor:
    """Numbers such as layers are given: some are a hundred times larger than the rest."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, width, generator=generator)
    x[:, torch.randint(0, width, (1 + width // 100,), generator=generator)] *= 100
    return x


def bound(tiles: Tiles, exact: Tensor, magnitudes: Tensor, x: Tensor) -> Tensor:
    """Return how far each output [T, N] may be from the product with ``exact`` [N, K].

    ``magnitudes`` [N, K]: |code value| + |zero point|, times the scale. fp32: a sum of n terms, whatever its order,
    errs by n 2^-24 of the sum of their magnitudes; an output has at most K + 8 roundings one after the other. Integers:
    x errs by half a step, m / 65534 with m the largest of its block, and a little more since the step is rounded too.
    """
    sums = x.abs().double() @ magnitudes.T
    error = (x.shape[1] + 8) * EPSILON * sums
    if tiles.block:
        filled = torch.nn.functional.pad(x, (0, -x.shape[1] % tiles.block))
        largest = filled.reshape(len(x), -1, tiles.block).abs().amax(2).repeat_interleave(tiles.block, 1)
        error += (largest[:, : x.shape[1]].double() / 65534 * (1 + 2**-6)) @ exact.abs().T
    return error


def magnitudes_of(packed_: PackedTensor, exact: Tensor) -> Tensor:
    """Return |value| + |zero point| times the scale, the middle of symmetric codes counted as their zero point; with
    an offset |value| + |offset|, each once for what is added and once for what that is taken from."""
    if packed_.scheme.mode.is_in_blocks:
        return exact.abs() + 2 * offsets_of(packed_).repeat_interleave(packed_.scheme.group_size, 1)
    if packed_.offset is not None:
        offset = packed_.offset.double().abs()
        return exact.abs() + 2 * offset.repeat_interleave(exact.shape[1] // offset.shape[1], 1)
    bits = packed_.scheme.mode.bits
    zeros = {Codes.SYMMETRIC: 2 ** (bits - 1), Codes.ASYMMETRIC: 2**bits - 1}
    zero = zeros.get(packed_.scheme.mode.grid.codes, 0) if tiles_of(packed_).block else 0  # what is looked up has none
    scale = packed_.scale.double().abs()
    scale = scale.repeat_interleave(exact.shape[1] // scale.shape[1], 1)
    return exact.abs() + 2 * zero * scale


def offsets_of(packed_: PackedTensor) -> Tensor:
    """Return the magnitude of what is added in each sub-block of a block format, fp64 [N, G]."""
    form, blocks = packed_.scheme.mode.block_format, unpack(packed_).blocks
    assert blocks is not None
    offset = blocks.offset()
    return (blocks.scale() * form.levels[0] if offset is None else offset).double().abs()


@pytest.mark.parametrize("count", [1, 2, 4, 7, 33])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_products_are_those_of_float64(scheme: str, count: int) -> None:
    for shape in [*SHAPES, *(ODD_WIDTHS if scheme.endswith("gall") or scheme in ("int8_sym", "int8_asym") else [])]:
        if not Scheme.parse(scheme).fits(shape[1]):
            continue
        weight = packed(scheme, shape)
        tiles, x, exact = tiles_of(weight), inputs(count, shape[1]), weight.dequantize().double()
        error = (multiply(tiles, x).double() - x.double() @ exact.T).abs()
        assert bool((error <= bound(tiles, exact, magnitudes_of(weight, exact), x)).all()), shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES + ODD_WIDTHS, ids=str)
def test_products_of_16_bit_floats(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    bias = torch.randn(shape[0])
    x, tiles = inputs(9, shape[1]), tiles_of_floats(weight, bias)
    expected = x.double() @ weight.double().T + bias.double()
    error = (multiply(tiles, x).double() - expected).abs()
    allowed = bound(tiles, weight.double(), weight.double().abs(), x) + 2 * EPSILON * expected.abs()
    assert bool((error <= allowed).all())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_token_gets_the_same_alone_and_among_others(scheme: str) -> None:
    """Whatever comes with it in a batch, and at whatever place."""
    width = 192 if "-g" in scheme else 256
    tiles, x = tiles_of(packed(scheme, (50, width))), inputs(33, width)
    together = multiply(tiles, x)
    assert torch.equal(together, torch.cat([multiply(tiles, row.unsqueeze(0)) for row in x]))
    assert torch.equal(together[5:18], multiply(tiles, x[5:18]))


def test_integers_are_exact_where_activations_are() -> None:
    """Activations that are whole steps of their block come through without any error but fp32's."""
    weight = packed("int4_asym-g64", (48, 192))
    x = torch.randint(-32767, 32768, (3, 192), generator=torch.Generator().manual_seed(3)).float()
    x[:, ::64] = 32767
    exact, tiles = weight.dequantize().double(), tiles_of(weight)
    sums = x.abs().double() @ magnitudes_of(weight, exact).T
    assert bool(((multiply(tiles, x).double() - x.double() @ exact.T).abs() <= 16 * EPSILON * sums).all())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names what x86 processors lack")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx"])
def test_processors_that_know_less(without: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same source for a processor with AVX2 only, and for one with neither."""
    other = library(SOURCE, (*FUSED_FLAGS, without, "-O1"))  # quicker to compile
    assert other is not None
    schemes = ("int4_asym-g64", "int5_sym-g32", "int8_asym", "nf4-g64", "int2_sym-g64", "fp8_e4m3-g64", *BLOCK_FORMATS)
    monkeypatch.setattr(products, "decoding", lambda: other)
    for scheme in schemes:
        weight = packed(scheme, (50, 256))
        tiles, x, exact = tiles_of(weight), inputs(6, 256), weight.dequantize().double()
        assert torch.equal(look_up(tiles, torch.tensor([49, 0])), weight.dequantize()[[49, 0]])
        error = (multiply(tiles, x).double() - x.double() @ exact.T).abs()
        assert bool((error <= bound(tiles, exact, magnitudes_of(weight, exact), x)).all()), scheme


def test_hostile_activations_stay_finite() -> None:
    tiles = tiles_of(packed("int4_asym-g64", (48, 192)))
    assert torch.equal(multiply(tiles, torch.zeros(2, 192)), torch.zeros(2, 48))
    tiny = multiply(tiles, torch.full((1, 192), 1e-42))
    assert bool(tiny.isfinite().all())
    assert multiply(tiles, torch.empty(0, 192)).shape == (0, 48)


def test_the_layer_takes_the_compiled_product() -> None:
    weight = packed("nf4-g64", (50, 192))
    product = product_for(weight)
    assert isinstance(product, CompiledProduct)
    assert product.is_fast
    x = torch.randn(2, 5, 192).bfloat16()
    found = PackedLinear(product, torch.ones(50).bfloat16())(x)
    exact = x.double() @ weight.dequantize().double().T + 1
    assert found.dtype == torch.bfloat16
    assert math.isclose(float((found.double() - exact).norm() / exact.norm()), 0, abs_tol=2**-8)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_looked_up_rows_are_the_dequantized_ones(scheme: str) -> None:
    width = 192 if "-g" in scheme else 256
    weight = packed(scheme, (50, width))
    indices = torch.tensor([[0, 49, 3], [3, 31, 17]])
    assert torch.equal(look_up(tiles_of(weight), indices)[..., :width], weight.dequantize()[indices])


def test_rows_that_a_weight_has_not_are_refused() -> None:
    tiles = tiles_of(packed("q4_k", (50, 256)))
    for index in (-1, 50, 1 << 40):
        with pytest.raises(ValueError, match="does not take"):
            look_up(tiles, torch.tensor([0, index]))
    with pytest.raises(ValueError, match="compiled code needs"):
        look_up(tiles, torch.tensor([0], dtype=torch.int32))
    assert look_up(tiles, torch.empty(0, 2, dtype=torch.int64)).shape == (0, 2, 256)


def test_groups_that_the_loops_do_not_divide_are_not_taken() -> None:
    assert not takes(Scheme(Mode.INT4_ASYM, 24))
    assert not takes(Scheme(Mode.NF4, 24))
    assert not takes(Scheme(Mode.INT5_SYM, 48))
    assert not takes(Scheme(Mode.INT6_AFFINE, 24))
    assert takes(Scheme(Mode.INT4_SYM, 48))
    assert tiles_of(packed("int4_sym-g48", (16, 192))).kind is Kind.INTEGER4
    assert tiles_of(packed("int3_sym-g48", (16, 192))).kind is Kind.INTEGER4
    assert tiles_of(packed("int3_sym-g32", (16, 192))).kind is Kind.INTEGER3
