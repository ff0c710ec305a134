"""A packed weight in MLX's affine layout: which schemes it holds without loss, and their three arrays.

Of a weight [N, K] in groups of g: ``weight`` uint32 [N, K * bits / 32], codes along a row, low bits first; ``scales``
and ``biases`` fp16 [N, K / g]; ``w = q * scale + bias``. No number changes: steps about zero are codes from zero with a
bias of ``-2^(bits - 1) * scale``, which fp16 holds exactly, and one scale a row is repeated. Integer zero points are
not held: ``zero_point * scale`` needs up to 19 bits of precision, and a bias has 11.

Source: ``mlx.core.quantize`` and ``mlx.nn.QuantizedLinear``, MLX 0.32. Knows no files.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from studio.base.errors import ModelError
from studio.checkpoint.tensor_writer import Slot
from studio.quantization.packing import PackedTensor, pack_bits, unpack
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import WHOLE_CHANNEL, Scheme

GROUP_SIZES = (128, 64, 32)
BITS = (2, 3, 4, 5, 6, 8)
WORD = 32
"""Bits that codes are packed into."""
ROUNDED = (Codes.ASYMMETRIC,)
"""Integers whose zero points an offset of 16 bits holds only nearly."""


@dataclass(frozen=True)
class Settings:
    """What MLX is told of a weight: ``Settings(4, 64)``."""

    bits: int
    group_size: int

    def slots(self, shape: tuple[int, int]) -> dict[str, Slot]:
        """Return the arrays of a weight [N, K], by the end of their names."""
        rows, width = shape
        groups = Slot("F16", (rows, width // self.group_size))
        return {"weight": Slot("U32", (rows, width * self.bits // WORD)), "scales": groups, "biases": groups}


def settings_of(scheme: Scheme, width: int) -> Settings | None:
    """Return how MLX holds weights [N, ``width``] in this scheme without loss, None where it does not."""
    mode = scheme.mode
    if mode.is_in_blocks:
        form = mode.block_format
        is_held, own = form.is_uniform and form.scale_range is None and form.levels[0].is_integer(), form.sub_block
    else:
        is_held = mode.grid.codes in (Codes.SYMMETRIC, Codes.AFFINE) and mode.stored_as.scale_dtype == "F16"
        own = width if scheme.group_size == WHOLE_CHANNEL else scheme.group_size
    size = next((size for size in GROUP_SIZES if own % size == 0), None)
    return Settings(mode.bits, size) if is_held and size is not None and mode.bits in BITS else None


def becomes(scheme: Scheme, width: int) -> Scheme | None:
    """Return the nearest scheme that MLX holds, of as many bits; None for a width that none of its groups divides."""
    sizes = [size for size in reversed(GROUP_SIZES) if width % size == 0]
    if not sizes:
        return None
    own = scheme.group_size if scheme.group_size in sizes else max((s for s in sizes if s <= 64), default=sizes[0])
    bits = scheme.mode.bits if scheme.mode.bits in BITS else 8
    return Scheme.parse(f"int{bits}_affine-g{own}")


def arrays_of(packed: PackedTensor) -> dict[str, Tensor]:
    """Return the arrays of :meth:`Settings.slots` for some rows of a weight that :func:`settings_of` holds.

    Raises ModelError for an offset that is too large for 16 bits.
    """
    settings = settings_of(packed.scheme, packed.shape[1])
    if settings is None:
        raise ValueError(f"MLX does not hold {packed.scheme}")
    rounded = unpack(packed)
    if rounded.blocks is not None:
        form, scale, offset = packed.scheme.mode.block_format, rounded.blocks.d, rounded.blocks.dmin
        lowest = form.levels[0]
    else:
        scale, offset, lowest = packed.scale, rounded.offset, -(2.0 ** (settings.bits - 1))
    bias = (lowest * scale.float()).half() if offset is None else offset
    if not bool(bias.isfinite().all()):
        raise ModelError("to_mlx_range", bits=settings.bits)
    repeats = packed.shape[1] // settings.group_size // scale.shape[1]
    words = rounded.codes.contiguous() if settings.bits == 8 else pack_bits(rounded.codes, settings.bits).contiguous()
    return {
        "weight": words.view(torch.uint32),
        "scales": scale.half().repeat_interleave(repeats, 1),
        "biases": bias.half().repeat_interleave(repeats, 1),
    }
