"""INT4 in groups, through torch's ``_weight_int4pack_mm_for_cpu``: w = (q - 8) * s + z with a float z.

Knows no other format.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from studio.quantization.packing import PackedTensor, unpack
from studio.quantization.rounding.quantized_weight import Codes
from studio.runtime.kernels.product import Product

OPERATOR_GROUPS = (256, 128, 64, 32)
"""The group sizes the operator accepts."""
ROW_MULTIPLE = 16
"""It wants N to be a multiple of this; we add empty rows and drop their results."""
MIDDLE = 8


class Int4Product(Product):
    """``x @ W.T`` for integers of 4 bits, with zero points or offsets and without."""

    def __init__(self, packed: PackedTensor) -> None:
        super().__init__(packed)
        self.rows_count, width = packed.shape
        self.group_size = _operator_group(packed)
        rounded = unpack(packed)
        scale = rounded.scale.float()
        shift = torch.zeros_like(scale)
        if rounded.zero_point is not None:
            shift = (MIDDLE - rounded.zero_point.float()) * scale
        if rounded.offset is not None:
            shift = MIDDLE * scale + rounded.offset.float()
        # A group wider than the operator takes is several of its groups with the same numbers.
        repeats = width // self.group_size // scale.shape[1]
        scales_and_zeros = torch.stack((scale, shift), dim=-1).repeat_interleave(repeats, dim=1)
        extra = -self.rows_count % ROW_MULTIPLE
        codes = pad(rounded.codes, (0, 0, 0, extra)).int()
        self.register_buffer("codes", torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 2))
        scales_and_zeros = pad(scales_and_zeros, (0, 0, 0, 0, 0, extra)).transpose(0, 1).contiguous()
        self.register_buffer("scales_and_zeros", scales_and_zeros.bfloat16())

    codes: Tensor
    scales_and_zeros: Tensor

    @classmethod
    def takes(cls, packed: PackedTensor) -> bool:
        scheme = packed.scheme
        is_integer = scheme.mode.grid.codes in (Codes.SYMMETRIC, Codes.ASYMMETRIC, Codes.AFFINE)
        return is_integer and scheme.mode.bits == 4 and _operator_group(packed) > 0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.codes, self.group_size, self.scales_and_zeros)
        return y[:, : self.rows_count]


def _operator_group(packed: PackedTensor) -> int:
    """Return the largest group the operator takes that divides this weight's groups, 0 if there is none."""
    own = packed.scheme.group_size if packed.scheme.group_size > 0 else packed.shape[1]
    return next((size for size in OPERATOR_GROUPS if own % size == 0), 0)
