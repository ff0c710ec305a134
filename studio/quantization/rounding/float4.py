"""E2M1, the 4-bit float: FP4 (fp16 scales), MXFP4 (powers of two) and NVFP4 (E4M3 scales under one fp32 number).

Sources: OCP Microscaling Formats 1.0; ``weight_lowering.py`` of NNCF 3.4. A code is sign, two bits of exponent and one
of mantissa: its low three bits index the magnitudes below. Knows nothing of how codes are packed.
"""

from functools import cache

import torch
from torch import Tensor

from studio.quantization.rounding.float8 import MAX as E4M3_MAX
from studio.quantization.rounding.quantized_weight import EPSILON, Codes, NumberFormat, power_of_two, scale_to

MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
MAX = MAGNITUDES[-1]
SIGN = 8


def encode(normal: Tensor, _: Tensor | None = None) -> Tensor:
    """Return the code of the nearest E2M1 number, one exactly halfway taking the even mantissa."""
    codes = torch.bucketize(normal.abs().contiguous(), _halfways(normal.device))
    return codes + SIGN * normal.signbit()


def decode(codes: Tensor, _: Tensor | None = None) -> Tensor:
    """Return the numbers that E2M1 codes stand for, fp32."""
    return _signed_magnitudes(codes.device)[codes.int()]


def fp4(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    scale = scale_to(MAX, grouped)
    return encode(grouped / scale), scale.squeeze(2), None


def mxfp4(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    scale = power_of_two(scale_to(MAX, grouped))
    return encode(grouped / scale), scale.squeeze(2), None


def nvfp4(grouped: Tensor, global_scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes are found with the exact scale, as NNCF does; what is kept of it is its E4M3 share of the global one."""
    assert global_scale is not None
    codes, scale, _ = fp4(grouped, None)
    share = scale / global_scale.to(scale.device)
    return codes, share.half().to(torch.float8_e4m3fn).float(), None


class WidestScale:
    """NVFP4's global scale [1]: the largest group's scale becomes E4M3's largest number."""

    def __init__(self) -> None:
        self._top = EPSILON

    def add(self, grouped: Tensor) -> None:
        self._top = max(self._top, float(scale_to(MAX, grouped).max()))

    def result(self) -> Tensor:
        return torch.tensor([self._top], dtype=torch.float32) / E4M3_MAX


FP4, MXFP4, NVFP4 = (
    NumberFormat(fp4, decode, encode, codes=Codes.E2M1, bits=4),
    NumberFormat(mxfp4, decode, encode, codes=Codes.E2M1, bits=4),
    NumberFormat(nvfp4, decode, encode, WidestScale, Codes.E2M1, bits=4, has_global_scale=True),
)


@cache
def _halfways(device: torch.device) -> Tensor:
    """Return the bounds [7]: a magnitude above one takes the next code. Where the next is even, halfway counts."""
    levels = torch.tensor(MAGNITUDES, dtype=torch.float32)
    bounds = (levels[1:] + levels[:-1]) / 2
    bounds[1::2] = torch.nextafter(bounds[1::2], torch.zeros((), dtype=torch.float32))
    return bounds.to(device)


@cache
def _signed_magnitudes(device: torch.device) -> Tensor:
    levels = torch.tensor(MAGNITUDES, dtype=torch.float32, device=device)
    return torch.cat((levels, -levels))
