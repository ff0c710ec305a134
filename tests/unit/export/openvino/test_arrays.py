"""OpenVINO's constants stand for the packed weight's very numbers, read here by the layout's words alone."""

import pytest
import torch
from torch import Tensor

from studio.export.openvino.arrays import BITS, becomes, bytes_of, constants_of
from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.rounding.levels import NF4_LEVELS
from studio.quantization.scheme import Scheme

WIDTH = 256
HELD = [
    *(f"{mode}-g{size}" for mode in ("int4_asym", "int4_sym", "nf4", "int4_affine") for size in (32, 64, "all")),
    *("int8_sym", "int8_asym", "int8_affine-g64", "int2_affine-g32"),
]
NOT_HELD = ["int3_sym-g64", "int5_sym-g32", "int6_affine-g64", "cb4-g64", "fp4-g64", "mxfp4", "nvfp4", "q4_k", "q8_0"]


def packed(name: str, rows: int = 6) -> PackedTensor:
    weight = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(1)) * 0.05 + 0.01
    scheme = Scheme.parse(name)
    return pack(round_to_nearest(weight, scheme), scheme)


def numbers(raw: Tensor, kind: str) -> Tensor:
    """Low bits first; two's complement of signed ones."""
    if kind in ("f16", "f32"):
        return raw.view(torch.float16 if kind == "f16" else torch.float32).float()
    bits = BITS[kind]
    codes = torch.tensor([byte >> shift & (1 << bits) - 1 for byte in raw.tolist() for shift in range(0, 8, bits)])
    if kind.startswith("i"):
        codes = codes - (codes >= 1 << bits - 1) * (1 << bits)
    return torch.tensor(NF4_LEVELS)[codes] if kind == "nf4" else codes.float()


@pytest.mark.parametrize("name", HELD)
def test_no_number_changes(name: str) -> None:
    weight = packed(name)
    form = constants_of(weight.scheme, WIDTH)
    assert form is not None
    raw, parts = bytes_of(weight), form.parts(weight.shape)
    assert list(raw) == list(parts)
    assert {part: each.numel() for part, each in raw.items()} == {part: each.nbytes for part, each in parts.items()}
    read = {part: numbers(raw[part], each.type).reshape(each.shape) for part, each in parts.items()}
    found = ((read["codes"] - read.get("zero_point", torch.zeros(1))) * read["scale"]).reshape(weight.shape)
    if form.zero_point == "f32":  # an offset over a scale is rounded to 24 bits, and so is the product
        largest = weight.dequantize().abs().max() * 2 ** (weight.scheme.mode.bits - 4)
        assert float((found - weight.dequantize()).abs().max()) < 4 * 2.0**-24 * max(float(largest), 1.0)
    else:
        assert torch.equal(found, weight.dequantize())


@pytest.mark.parametrize("name", ["int4_asym-g64", "int4_affine-g32", "int8_sym"])
def test_rows_come_in_pieces(name: str) -> None:
    scheme, whole = Scheme.parse(name), bytes_of(packed(name))
    weight = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(1)) * 0.05 + 0.01
    pieces = [bytes_of(pack(round_to_nearest(piece, scheme), scheme)) for piece in weight.split(2)]
    for part, raw in whole.items():
        assert torch.equal(torch.cat([piece[part] for piece in pieces]), raw)


@pytest.mark.parametrize("name", NOT_HELD)
def test_what_is_not_held_becomes_what_is(name: str) -> None:
    scheme = Scheme.parse(name)
    assert constants_of(scheme, 1536) is None
    other = becomes(scheme, 1536)
    assert other is not None
    assert constants_of(other, 1536) is not None
    with pytest.raises(ValueError, match="does not hold"):
        bytes_of(packed(name))


def test_an_odd_width_is_not_held() -> None:
    assert constants_of(Scheme.parse("int4_sym-gall"), 81) is None
    assert becomes(Scheme.parse("int4_sym-gall"), 81) is None
