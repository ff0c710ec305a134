"""Codes come back from the words of tiles where ``cpu/integers.h`` says they lie."""

import pytest
import torch

from studio.runtime.native.tile_codes import LANES, RUN, octets, words


def code_at(tiles: torch.Tensor, bits: int, row: int, k: int) -> int:
    """Read one code as the comment in ``integers.h`` has it, in Python's whole numbers."""
    lane = tiles[row // LANES, :, row % LANES].tolist()
    run, half, eight, place, pair = k // RUN * bits, k % RUN // 16, k % 16 // 8, k % 8 // 4, k % 4
    each = bits // 2  # words of a half but for the last bits
    at = run + half * each
    code = 0
    if bits & 4:
        code |= lane[at + eight] >> (16 * place + 4 * pair) & 15
    if bits & 2:
        code |= (lane[at + (2 if bits & 4 else 0)] >> (16 * place + 8 * eight + 2 * pair) & 3) << (bits & 4)
    if bits & 1:
        code |= (lane[run + bits - 1] >> (16 * place + 8 * half + 4 * eight + pair) & 1) << (bits - 1)
    return code


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("width", [64, 96, 80])
def test_words_hold_every_code(bits: int, width: int) -> None:
    codes = torch.randint(0, 2**bits, (19, width - 7), generator=torch.Generator().manual_seed(bits)).to(torch.uint8)
    filled = -(-width // RUN) * RUN if bits % 2 else width
    tiles = words(codes, bits, filled)
    assert tiles.shape == (2, filled * bits // RUN, LANES)
    assert tiles.dtype == torch.int32
    unsigned = tiles.long() & 0xFFFFFFFF
    for row in (0, 5, 16, 18):
        found = [code_at(unsigned, bits, row, k) for k in range(filled)]
        assert found == [*codes[row].tolist(), *[0] * (filled - width + 7)]
    assert not unsigned[1, :, 3:].any()  # rows that fill the tile up


def test_octets_have_even_inputs_before_odd_ones() -> None:
    codes = torch.arange(19 * 48, dtype=torch.int32).remainder(251).to(torch.uint8).reshape(19, 48)
    tiles = octets(codes, 64)
    assert tiles.shape == (2, 8, 2, LANES, 4)
    assert tiles[1, 3, 1, 2].tolist() == codes[18, 25:32:2].tolist()
    assert not tiles[:, 6:].any()
