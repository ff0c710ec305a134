"""E4M3, the 8-bit float: FP8 (fp16 scales) and MXFP8 (powers of two). A code is the number's eight bits.

Sources: OCP Microscaling Formats 1.0; ``weight_lowering.py`` and ``fp8_conversion.py`` of NNCF 3.4. Knows nothing of
how codes are packed.
"""

import torch
from torch import Tensor

from studio.quantization.rounding.quantized_weight import Codes, NumberFormat, power_of_two, scale_to

MAX = 448.0


def encode(normal: Tensor, _: Tensor | None = None) -> Tensor:
    """Return the bits of the nearest E4M3 number, through fp16 as OpenVINO converts."""
    return normal.half().to(torch.float8_e4m3fn).view(torch.uint8)


def decode(codes: Tensor, _: Tensor | None = None) -> Tensor:
    """Return the numbers that E4M3 bits stand for, fp32."""
    return codes.contiguous().view(torch.float8_e4m3fn).to(torch.float32)


def fp8(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    scale = scale_to(MAX, grouped)
    return encode(grouped / scale), scale.squeeze(2), None


def mxfp8(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    scale = power_of_two(scale_to(MAX, grouped))
    return encode(grouped / scale), scale.squeeze(2), None


FP8, MXFP8 = (NumberFormat(round_, decode, encode, codes=Codes.E4M3, bits=8) for round_ in (fp8, mxfp8))
