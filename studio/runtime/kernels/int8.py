"""INT8 per output channel, through torch's ``_weight_int8pack_mm``; one array serves embedding and head alike.

Knows no other format.
"""

import torch
from torch import Tensor

from studio.quantization.packing import PackedTensor
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import WHOLE_CHANNEL, Scheme
from studio.runtime.kernels.product import Lookup

CENTRE = 128
WIDTH_MULTIPLE = 16
"""torch 2.13's operator reads past the end of rows of any other width: wrong numbers, or a crash."""


class Int8Product(Lookup):
    """``x @ W.T`` with W = (q - zp) * s.

    torch's operator knows only symmetric codes, so an asymmetric weight is split: (q - 128) goes through the operator
    and ``(128 - zp) * s * sum(x)``, or ``(128 * s + offset) * sum(x)``, is added in fp32.
    """

    def __init__(self, packed: PackedTensor) -> None:
        super().__init__(packed)
        codes, scale = packed.codes, packed.scale.float().flatten()
        self.register_buffer("codes", codes if codes.dtype == torch.int8 else (codes ^ 0x80).view(torch.int8))
        self.register_buffer("scale", scale.bfloat16())
        self.register_buffer("exact_scale", scale)
        offset = None
        if packed.zero_point is not None:
            offset = (CENTRE - packed.zero_point.float().flatten()) * scale
        elif packed.offset is not None:
            offset = CENTRE * scale + packed.offset.float().flatten()
        self.register_buffer("offset", offset)

    codes: Tensor
    scale: Tensor
    exact_scale: Tensor
    offset: Tensor | None

    @classmethod
    def takes(cls, packed: PackedTensor) -> bool:
        return cls.takes_scheme(packed.scheme) and packed.shape[1] % WIDTH_MULTIPLE == 0

    @classmethod
    def takes_scheme(cls, scheme: Scheme) -> bool:
        """Return whether weights in this scheme, if wide enough, are taken: integers of 8 bits, a scale a row."""
        is_integer = scheme.mode.grid.codes in (Codes.SYMMETRIC, Codes.ASYMMETRIC, Codes.AFFINE)
        return is_integer and scheme.mode.bits == 8 and scheme.group_size == WHOLE_CHANNEL

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.aten._weight_int8pack_mm(x, self.codes, self.scale)
        if self.offset is None:
            return y
        total = x.sum(-1, keepdim=True, dtype=torch.float32)
        return torch.addcmul(y.float(), total, self.offset).to(x.dtype)

    def rows(self, indices: Tensor) -> Tensor:
        rows = self.codes[indices].float() * self.exact_scale[indices].unsqueeze(-1)
        if self.offset is not None:
            rows += self.offset[indices].unsqueeze(-1)
        return rows.bfloat16()
