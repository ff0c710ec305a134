"""Codes go into bytes and come back; the bytes are those the scheme promises."""

import pytest
import torch

from studio.packing import PackedTensor, pack, pack_bits, unpack, unpack_bits
from studio.rounding import Rounded, dequantize, round_to_nearest
from studio.scheme import Mode, Scheme

TORCH_DTYPES = {"U8": torch.uint8, "I8": torch.int8, "F16": torch.float16}
GRID = [
    pytest.param(Scheme.parse(name), shape, id=f"{name}-{shape[0]}x{shape[1]}")
    for name, shape in [
        ("int8_sym", (4, 6)),
        ("int8_sym", (3, 5)),
        ("int8_asym", (4, 6)),
        ("int8_asym", (1, 1)),
        ("int4_sym-g64", (6, 128)),
        ("int4_sym-gall", (3, 5)),
        ("int4_asym-g64", (6, 128)),
        ("int4_asym-g32", (5, 96)),
        ("int4_asym-gall", (3, 5)),
        ("nf4-g64", (6, 128)),
        ("nf4-gall", (1, 7)),
    ]
]


def a_weight(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)) + 0.1


def packed_weight(scheme: Scheme, shape: tuple[int, int]) -> tuple[Rounded, PackedTensor]:
    rounded = round_to_nearest(a_weight(shape), scheme)
    return rounded.stored(), pack(rounded, scheme)


def same(a: Rounded, b: Rounded) -> bool:
    if (a.zero_point is None) != (b.zero_point is None):
        return False
    zero_points = a.zero_point is None or b.zero_point is None or torch.equal(a.zero_point, b.zero_point)
    return torch.equal(a.codes, b.codes) and torch.equal(a.scale, b.scale) and zero_points


def test_the_first_code_of_two_is_in_the_low_half() -> None:
    codes = torch.tensor([[1, 2, 3, 4], [15, 0, 0, 15]], dtype=torch.uint8)
    assert pack_bits(codes, 4).tolist() == [[0x21, 0x43], [0x0F, 0xF0]]


def test_an_odd_end_is_filled_with_zero() -> None:
    codes = torch.tensor([[9, 10, 11]], dtype=torch.uint8)
    assert pack_bits(codes, 4).tolist() == [[0xA9, 0x0B]]
    assert unpack_bits(pack_bits(codes, 4), 4, 3).tolist() == codes.tolist()


@pytest.mark.parametrize(("scheme", "shape"), GRID)
def test_the_arrays_are_those_the_scheme_names(scheme: Scheme, shape: tuple[int, int]) -> None:
    arrays = packed_weight(scheme, shape)[1].arrays()
    assert [(name, array.dtype, tuple(array.shape), array.nbytes) for name, array in arrays.items()] == [
        (part.name, TORCH_DTYPES[part.dtype], part.shape, part.nbytes) for part in scheme.parts(shape)
    ]


@pytest.mark.parametrize(("scheme", "shape"), GRID)
def test_unpacking_undoes_packing(scheme: Scheme, shape: tuple[int, int]) -> None:
    stored, packed = packed_weight(scheme, shape)
    assert same(unpack(packed), stored)


@pytest.mark.parametrize(("scheme", "shape"), GRID)
def test_a_range_of_rows_is_that_range_of_the_whole(scheme: Scheme, shape: tuple[int, int]) -> None:
    stored, packed = packed_weight(scheme, shape)
    whole = dequantize(stored, scheme.mode)
    assert torch.equal(packed.dequantize(), whole)
    for start in range(shape[0]):
        for stop in range(start + 1, shape[0] + 1):
            assert torch.equal(packed.dequantize(start, stop), whole[start:stop])


@pytest.mark.parametrize(("scheme", "shape"), GRID)
def test_pieces_of_even_length_lie_end_to_end_in_the_whole(scheme: Scheme, shape: tuple[int, int]) -> None:
    """So a weight can be packed and written a few rows at a time."""
    weight = a_weight(shape)
    whole = pack(round_to_nearest(weight, scheme), scheme).arrays()
    pieces = [pack(round_to_nearest(piece, scheme), scheme).arrays() for piece in weight.split(2)]
    for name, array in whole.items():
        assert torch.equal(torch.cat([piece[name].flatten() for piece in pieces]), array.flatten())


def test_signed_codes_are_the_file_s_own_numbers() -> None:
    """int8_sym is stored as I8, -128 to 127, the way other programs read it."""
    weight = torch.tensor([[-1.0, -0.5, 0.0, 0.5]])
    packed = pack(round_to_nearest(weight, Scheme(Mode.INT8_SYM)), Scheme(Mode.INT8_SYM))
    assert packed.codes.tolist() == [[-128, -64, 0, 64]]
