"""Our numbers beside NNCF's: how many of a tensor's codes, zero points and stored scales differ."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.quantization.packing import pack, unpack
from studio.quantization.rounding import QuantizedWeight, round_to_nearest
from studio.quantization.scheme import Scheme


@dataclass(frozen=True)
class Difference:
    """Numbers that are not the same to the last bit."""

    codes: int = 0
    zero_points: int = 0
    scales: int = 0
    tensor_params: int = 0

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(
            self.codes + other.codes,
            self.zero_points + other.zero_points,
            self.scales + other.scales,
            self.tensor_params + other.tensor_params,
        )


SAME = Difference()


def ours(weight: Tensor, scheme: Scheme) -> QuantizedWeight:
    """Return the numbers that the studio stores, read back from their bytes."""
    return unpack(pack(round_to_nearest(weight, scheme), scheme))


def difference(mine: QuantizedWeight, theirs: QuantizedWeight) -> Difference:
    return Difference(
        _unequal(mine.codes, theirs.codes),
        _unequal(mine.zero_point, theirs.zero_point),
        _unequal(mine.scale, theirs.scale),
        _unequal(mine.tensor_params, theirs.tensor_params),
    )


def differences(
    weights: Mapping[str, Tensor], theirs: Mapping[str, QuantizedWeight], scheme: Scheme
) -> dict[str, Difference]:
    """Return the tensors that are not the same in every bit."""
    found = {name: difference(ours(weight, scheme), theirs[name]) for name, weight in weights.items()}
    return {name: one for name, one in found.items() if one != SAME}


def _unequal(mine: Tensor | None, theirs: Tensor | None) -> int:
    if mine is None or theirs is None:
        return 0 if mine is theirs else max(x.numel() for x in (mine, theirs) if x is not None)
    assert mine.dtype == theirs.dtype
    assert mine.shape == theirs.shape
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[mine.element_size()]
    return int((mine.contiguous().view(bits) != theirs.contiguous().view(bits)).sum())
