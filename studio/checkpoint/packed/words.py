"""Words of 32 bits -> the weights that their codes stand for: pure tensor maths. Knows no file and no format."""

import torch
from torch import Tensor

from studio.quantization.packing.bits import unpack_bits


def codes(words: Tensor, bits: int, width: int) -> Tensor:
    """Return uint8 [..., width] of int32 ``words`` [..., W] that hold codes of 1 to 8 bits, low bits first, one after
    the other without gaps."""
    octets = words.reshape(-1).view(torch.uint8).reshape(*words.shape[:-1], 4 * words.shape[-1])
    return octets[..., :width] if bits == 8 else unpack_bits(octets, bits, width)


def of_channel(per_group: Tensor, group_size: int, width: int, order: Tensor | None) -> Tensor:
    """Return what each weight's group has, [N, K] of ``per_group`` [N, G] (or [N, 1]).

    ``order`` [K] says which group each input channel is in; without it groups of ``group_size`` follow each other.
    """
    if order is not None:
        return per_group[:, order]
    if group_size < 0:
        return per_group.expand(-1, width)
    return per_group.repeat_interleave(group_size, 1)[:, :width]


def dequantized(numbers: Tensor, zeros: Tensor | float, scales: Tensor) -> Tensor:
    """Return (q - z) * s as fp32 [N, K], exact: fp32 holds the product of a code and a 16-bit scale."""
    return (numbers.float() - zeros).mul_(scales.float())
