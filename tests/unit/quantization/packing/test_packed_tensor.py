"""Codes go into bytes and come back; the bytes are those the scheme promises."""

import pytest
import torch

from studio.quantization.packing import PackedTensor, pack, pack_bits, unpack, unpack_bits
from studio.quantization.rounding import QuantizedWeight, dequantize, round_to_nearest
from studio.quantization.scheme import Mode, Scheme

TORCH_DTYPES = {
    "U8": torch.uint8,
    "I8": torch.int8,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
}
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
        ("int4_affine-g64", (6, 128)),
        ("int3_affine-gall", (3, 5)),
        ("nf4-g64", (6, 128)),
        ("nf4-gall", (1, 7)),
        ("int5_sym-g32", (6, 128)),
        ("int5_sym-gall", (3, 5)),
        ("int5_sym-g9", (5, 27)),
        ("int3_sym-g64", (6, 128)),
        ("int3_sym-gall", (3, 5)),
        ("int3_sym-g9", (5, 27)),
        ("int2_sym-g64", (6, 128)),
        ("int2_sym-gall", (3, 5)),
        ("fp4-g32", (5, 96)),
        ("mxfp4", (3, 64)),
        ("nvfp4", (5, 48)),
        ("fp8_e4m3-g32", (5, 96)),
        ("fp8_e4m3-gall", (3, 5)),
        ("mxfp8_e4m3", (3, 64)),
        ("cb4-gall", (3, 5)),
        ("cb4_learned-g32", (5, 96)),
        ("cb4_learned-gall", (3, 5)),
    ]
]
NAMED = {scheme.mode for param in GRID for scheme in param.values[:1] if isinstance(scheme, Scheme)}
GRID += [
    pytest.param(Scheme.of(mode, size), shape, id=f"{Scheme.of(mode, size)}-{shape[0]}x{shape[1]}")
    for mode in Mode
    if mode not in NAMED
    for size, shape in (((32, (5, 256)), (-1, (3, 512))) if mode.is_in_blocks else ((32, (5, 96)), (-1, (3, 160))))
]
"""Every format is packed here, also those that nobody named above."""


def a_weight(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)) + 0.1


def packed_weight(scheme: Scheme, shape: tuple[int, int]) -> tuple[QuantizedWeight, PackedTensor]:
    rounded = round_to_nearest(a_weight(shape), scheme)
    return rounded.stored(scheme.mode.stored_as.scale_dtype), pack(rounded, scheme)


def same(a: QuantizedWeight, b: QuantizedWeight) -> bool:
    pairs = [
        (a.codes, b.codes),
        (a.scale.float(), b.scale.float()),
        (a.zero_point, b.zero_point),
        (a.tensor_params, b.tensor_params),
    ]
    return all(x is y if x is None or y is None else torch.equal(x, y) for x, y in pairs)


def test_the_first_code_of_two_is_in_the_low_half() -> None:
    codes = torch.tensor([[1, 2, 3, 4], [15, 0, 0, 15]], dtype=torch.uint8)
    assert pack_bits(codes, 4).tolist() == [[0x21, 0x43], [0x0F, 0xF0]]


def test_codes_of_2_and_3_bits_run_on_low_bits_first() -> None:
    twos = torch.tensor([[1, 2, 3, 0, 3]], dtype=torch.uint8)
    assert pack_bits(twos, 2).tolist() == [[0b00_11_10_01, 0b11]]
    threes = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 0, 5]], dtype=torch.uint8)  # two of them lie in two bytes
    assert pack_bits(threes, 3).tolist() == [[0b11_010_001, 0b0_101_100_0, 0b000_111_11, 0b101]]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("width", range(1, 26))
def test_codes_of_any_bits_come_back_at_any_width(bits: int, width: int) -> None:
    codes = torch.randint(0, 2**bits, (3, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(width))
    codes[0] = 2**bits - 1
    packed = pack_bits(codes, bits)
    assert packed.shape == (3, -(-width * bits // 8))
    assert torch.equal(unpack_bits(packed, bits, width), codes)


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
    whole = pack(round_to_nearest(weight, scheme), scheme)
    pieces = [pack(round_to_nearest(piece, scheme, whole.tensor_params), scheme).arrays() for piece in weight.split(2)]
    for name, array in whole.arrays().items():
        if array is whole.tensor_params:
            assert all(torch.equal(piece[name], array) for piece in pieces)
        else:
            assert torch.equal(
                bits_of(torch.cat([piece[name].flatten() for piece in pieces])), bits_of(array.flatten())
            )


def bits_of(array: torch.Tensor) -> torch.Tensor:
    """The same bytes in a dtype that torch compares."""
    return array.view(torch.uint8)


@pytest.mark.parametrize(("scheme", "shape"), GRID)
def test_a_packed_weight_is_made_of_its_arrays(scheme: Scheme, shape: tuple[int, int]) -> None:
    _, packed = packed_weight(scheme, shape)
    assert torch.equal(PackedTensor.of(scheme, shape, packed.arrays()).dequantize(), packed.dequantize())


def test_signed_codes_are_the_file_s_own_numbers() -> None:
    """int8_sym is stored as I8, -128 to 127, the way other programs read it."""
    weight = torch.tensor([[-1.0, -0.5, 0.0, 0.5]])
    packed = pack(round_to_nearest(weight, Scheme(Mode.INT8_SYM)), Scheme(Mode.INT8_SYM))
    assert packed.codes.tolist() == [[-128, -64, 0, 64]]
