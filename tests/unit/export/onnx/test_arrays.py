"""onnxruntime's arrays stand for the packed weight's very numbers, read here by the operator's words alone."""

import pytest
import torch
from torch import Tensor

from studio.export.onnx.arrays import Settings, arrays_of, becomes, settings_of
from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.rounding.levels import NF4_LEVELS
from studio.quantization.scheme import Scheme

WIDTH = 256
HELD = [
    *(f"{mode}-g{size}" for mode in ("int4_asym", "int4_sym", "int4_affine", "int2_affine") for size in (32, 64, 256)),
    *("int4_asym-gall", "int2_sym-g64", "int8_sym", "int8_asym", "q4_0", "q8_0", "nf4-g32", "nf4-g64", "nf4-gall"),
]
NOT_HELD = [
    *("int3_sym-g64", "int5_sym-g32", "int6_affine-g64", "int8_affine-g64", "cb4-g64", "fp4-g64"),
    *("fp8_e4m3-gall", "mxfp4", "nvfp4", "q4_k", "q4_1"),
]


def packed(name: str, rows: int = 6, width: int = WIDTH) -> PackedTensor:
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(1)) * 0.05 + 0.01
    scheme = Scheme.parse(name)
    return pack(round_to_nearest(weight, scheme), scheme)


def codes(octets: Tensor, bits: int, width: int) -> Tensor:
    """Low bits first, what fills the last byte left out."""
    steps = torch.arange(0, 8, bits)
    return (octets.int().unsqueeze(-1) >> steps & (1 << bits) - 1).flatten(1)[:, :width].float()


def numbers(arrays: dict[str, Tensor], settings: Settings, width: int) -> Tensor:
    """What MatMulNBits multiplies with, or MatMulBnb4: its levels, the high bits first."""
    blocks = width // settings.block_size
    if settings.has_levels:
        places = torch.stack([arrays["codes"] >> 4, arrays["codes"] & 15], -1).reshape(-1, blocks, settings.block_size)
        return (torch.tensor(NF4_LEVELS)[places.long()] * arrays["scale"].float().unsqueeze(2)).flatten(1)
    zero = torch.full((1, blocks), 2.0 ** (settings.bits - 1))
    if settings.zero_point == "U8":
        zero = codes(arrays["zero_point"], settings.bits, blocks)
    elif settings.zero_point == "F32":
        zero = arrays["zero_point"]
    grouped = codes(arrays["codes"], settings.bits, width).reshape(-1, blocks, settings.block_size)
    return ((grouped - zero.unsqueeze(2)) * arrays["scale"].float().unsqueeze(2)).flatten(1)


@pytest.mark.parametrize("name", HELD)
def test_no_number_changes(name: str) -> None:
    weight = packed(name)
    settings = settings_of(weight.scheme, WIDTH)
    assert settings is not None
    arrays, slots = arrays_of(weight), settings.slots(weight.shape)
    assert {part: tuple(each.shape) for part, each in arrays.items()} == {part: s.shape for part, s in slots.items()}
    assert {part: each.nbytes for part, each in arrays.items()} == {part: s.nbytes for part, s in slots.items()}
    found = numbers(arrays, settings, WIDTH)
    if settings.zero_point == "F32":  # an offset over a scale is rounded to 24 bits, and so is the product
        assert float((found - weight.dequantize()).abs().max()) < 4 * 2.0**-24
    else:
        assert torch.equal(found, weight.dequantize())


@pytest.mark.parametrize("name", ["int4_asym-g32", "int4_asym-gall", "int4_affine-g32"])
def test_an_odd_number_of_blocks_fills_its_last_byte(name: str) -> None:
    weight = packed(name, width=96)
    settings = settings_of(weight.scheme, 96)
    assert settings is not None
    assert settings.block_size == 32
    assert float((numbers(arrays_of(weight), settings, 96) - weight.dequantize()).abs().max()) < 4 * 2.0**-24


@pytest.mark.parametrize("name", ["int4_asym-g64", "int4_affine-g32", "int8_sym", "q4_0"])
def test_rows_come_in_pieces(name: str) -> None:
    scheme, whole = Scheme.parse(name), arrays_of(packed(name))
    weight = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(1)) * 0.05 + 0.01
    pieces = [arrays_of(pack(round_to_nearest(piece, scheme), scheme)) for piece in weight.split(2)]
    for part, array in whole.items():
        assert torch.equal(torch.cat([piece[part] for piece in pieces]), array)


@pytest.mark.parametrize("name", NOT_HELD)
def test_what_is_not_held_becomes_what_is(name: str) -> None:
    scheme = Scheme.parse(name)
    assert settings_of(scheme, 1536) is None
    other = becomes(scheme, 1536)
    assert other is not None
    assert settings_of(other, 1536) is not None
    with pytest.raises(ValueError, match="does not hold"):
        arrays_of(packed(name))


@pytest.mark.parametrize("width", [81, 24])
def test_a_width_that_no_block_divides_is_not_held(width: int) -> None:
    assert settings_of(Scheme.parse("int4_sym-gall"), width) is None
    assert becomes(Scheme.parse("int4_sym-gall"), width) is None
