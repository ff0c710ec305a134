"""Codes of a weight -> the words of its tiles, as ``cpu/integers.h`` reads them. Knows neither formats nor scales.

A tile holds sixteen rows, one a lane: what one row needs next lies beside what the others need next.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from studio.quantization.packing import pack_bits

LANES = 16
RUN = 32
"""Inputs whose codes lie together, ``bits`` words of each row."""


def lanes(numbers: Tensor) -> Tensor:
    """[N, G] -> [tiles, G, 16]: one of each row side by side."""
    rows, columns = numbers.shape
    return pad(numbers, (0, 0, 0, -rows % LANES)).reshape(-1, LANES, columns).transpose(1, 2).contiguous()


def inputs(numbers: Tensor, filled: int) -> Tensor:
    """[N, K] -> [tiles, filled, 16]."""
    return lanes(pad(numbers, (0, filled - numbers.shape[1])))


def nibbles(packed: Tensor, filled: int) -> Tensor:
    """Codes of 4 bits, two to a byte, [N, K / 2] -> int32 [tiles, filled / 8, 16]."""
    whole = pad(packed, (0, filled // 2 - packed.shape[1])).contiguous()
    return lanes(whole.view(torch.int32))


def octets(codes: Tensor, filled: int) -> Tensor:
    """[N, K] bytes -> [tiles, filled / 8, 2, 16, 4]: of each eight inputs sixteen rows' even ones, then the odd."""
    rows, width = codes.shape
    whole = pad(codes, (0, filled - width, 0, -rows % LANES))
    return whole.reshape(-1, LANES, filled // 8, 4, 2).permute(0, 2, 4, 1, 3).contiguous()


def words(codes: Tensor, bits: int, filled: int) -> Tensor:
    """[N, K] codes of 2 to 7 bits -> int32 [tiles, filled / 32 * bits, 16]; ``filled`` % 16 == 0, for odd bits % 32.

    Of each half of 32 inputs the lower four bits, then the next two; of both halves together the bit that is left. Each
    word holds the first four of eight inputs in its lower half, the others in the upper.
    """
    rows = len(codes)
    whole = pad(codes, (0, filled - codes.shape[1])).reshape(rows, -1, 2, 2, 4)  # half, eight, pair's place, pair
    parts = []
    if bits & 4:
        parts.append(pack_bits((whole & 15).reshape(rows, -1, 16), 4))
    if bits & 2:
        twos = (whole >> (bits & 4)) & 3
        parts.append(pack_bits(twos.transpose(2, 3).reshape(rows, -1, 16), 2))
    if bits & 1:
        ones = (whole >> (bits - 1)).reshape(rows, -1, 2, 2, 2, 4).permute(0, 1, 4, 2, 3, 5)
        last = pack_bits(ones.reshape(rows, -1, RUN), 1)
        pairs = [part.reshape(rows, -1, 2, part.shape[-1]) for part in parts]
        parts = [*(part[:, :, half] for half in (0, 1) for part in pairs), last]
    return lanes(torch.cat(parts, -1).flatten(1).contiguous().view(torch.int32))
