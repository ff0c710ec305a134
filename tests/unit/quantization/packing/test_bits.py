"""Codes of every width go into their bytes and come back, low bits first, the end filled with zero."""

import pytest
import torch

from studio.quantization.packing.bits import pack_bits, unpack_bits

BITS = (2, 3, 4, 5)


def some(bits: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(bits)
    return torch.randint(0, 2**bits, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [1, 7, 8, 9, 31, 64])
def test_they_come_back_from_as_many_bytes_as_they_need(bits: int, width: int) -> None:
    codes = some(bits, 3, 2, width)
    packed = pack_bits(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (3, 2, -(-width * bits // 8))
    assert torch.equal(unpack_bits(packed, bits, width), codes)


@pytest.mark.parametrize("bits", BITS)
def test_a_row_is_one_number_in_little_endian(bits: int) -> None:
    codes = some(bits, 13)
    number = sum(int(code) << (bits * place) for place, code in enumerate(codes))
    packed = pack_bits(codes, bits)
    assert int.from_bytes(bytes(packed.tolist()), "little") == number
