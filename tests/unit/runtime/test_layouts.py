"""Layouts name what they take: the formats that are to be fast are known, a made-up one goes to the general path."""

import pytest
import torch

from studio.quantization.ggml.formats import BLOCK_FORMATS
from studio.quantization.mode import Format, Mode
from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.rounding.integer import asymmetric, symmetric
from studio.quantization.scheme import Scheme
from studio.runtime.kernels import lookup_for, product_for
from studio.runtime.kernels.compiled import CompiledProduct
from studio.runtime.kernels.int4 import Int4Product
from studio.runtime.kernels.int8 import Int8Product
from studio.runtime.kernels.tiled import TiledProduct
from studio.runtime.native import fragments, tiling
from studio.runtime.native.products import decoding, multiply
from tests import made_up

SHAPE = (48, 192)
LAID_OUT = [mode for mode in Mode if (mode.grid.codes, mode.bits) in fragments.TAKEN]
"""Formats that are to be fast: every registered one whose codes the GPU's layout names."""


def packed(scheme: Scheme) -> PackedTensor:
    return pack(round_to_nearest(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) + 0.5, scheme), scheme)


@pytest.mark.parametrize("mode", LAID_OUT, ids=str)
def test_formats_that_layouts_name_are_taken(mode: Mode) -> None:
    scheme = Scheme.of(mode, 64)
    assert tiling.takes(scheme)
    assert fragments.takes(scheme)


@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_formats_in_blocks_lie_in_tiles(name: str) -> None:
    """The kernels of a GPU know none of them yet."""
    scheme = Scheme.of(Mode(name), -1)
    assert tiling.takes(scheme)
    assert not fragments.takes(scheme)
    if decoding() is not None:
        weight = pack(round_to_nearest(torch.randn(48, 256), scheme), scheme)
        assert type(product_for(weight)) is type(lookup_for(weight)) is CompiledProduct


@pytest.mark.parametrize("name", made_up.FORMATS)
@pytest.mark.parametrize("group", [-1, 32, 64], ids="g{}".format)
def test_a_format_that_no_layout_names_is_multiplied_by_the_general_path(name: str, group: int) -> None:
    with made_up.registered():
        scheme = Scheme(Mode(name), group)
        assert not tiling.takes(scheme)
        assert not fragments.takes(scheme)
        assert not Int8Product.takes_scheme(scheme)
        weight = packed(scheme)
        assert not Int4Product.takes(weight)
        for refused in (tiling.tiles_of, lambda one: fragments.fragments_of([one], [None], torch.device("cpu"))):
            with pytest.raises(ValueError, match=name):
                refused(weight)
        assert isinstance(product_for(weight), TiledProduct)
        assert isinstance(lookup_for(weight), TiledProduct)
        x = torch.randn(5, SHAPE[1]).bfloat16()
        exact = x.double() @ weight.dequantize().double().T
        assert (product_for(weight)(x).double() - exact).norm() < 2**-7 * exact.norm()


@pytest.mark.parametrize("scale_dtype", ["BF16", "F32"])
@pytest.mark.parametrize("has_zero_point", [False, True], ids=["sym", "asym"])
def test_tiles_take_known_codes_under_any_scale(scale_dtype: str, has_zero_point: bool) -> None:
    """The kernel of a GPU is given 16-bit scales, which would round these: it takes none of them."""
    form = Format(4, lambda: symmetric(4), scale_dtype=scale_dtype)
    if has_zero_point:
        form = Format(4, lambda: asymmetric(4), scale_dtype=scale_dtype, zero_point_bits=8)
    mode = Mode.register("made_up", form)
    try:
        weight = packed(Scheme(mode, 64))
        assert not fragments.takes(weight.scheme)
        assert tiling.takes(weight.scheme)
        if decoding() is None:
            pytest.skip("no compiler")
        x = torch.randn(5, SHAPE[1])
        exact = x.double() @ weight.dequantize().double().T
        assert (multiply(tiling.tiles_of(weight), x).double() - exact).norm() < 2**-12 * exact.norm()
    finally:
        Mode.remove("made_up")


@pytest.mark.parametrize("group", [32, 64], ids="g{}".format)
def test_eight_bits_in_groups_are_no_eight_bits_a_row(group: int) -> None:
    """torch's int8 operator knows one scale a row; the tiles know any group of sixteens."""
    mode = Mode.register("made_up", Format(8, lambda: asymmetric(8), zero_point_bits=8))
    try:
        weight = packed(Scheme(mode, group))
        assert not Int8Product.takes(weight)
        assert Int8Product.takes(packed(Scheme(Mode.INT8_ASYM)))
        assert tiling.takes(weight.scheme)
        x = torch.randn(5, SHAPE[1])
        exact = x.double() @ weight.dequantize().double().T
        assert (product_for(weight)(x.bfloat16()).double() - exact).norm() < 2**-7 * exact.norm()
    finally:
        Mode.remove("made_up")
