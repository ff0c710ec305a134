"""A packed weight as onnxruntime's ``MatMulNBits`` and ``MatMulBnb4`` read it: which schemes these hold without loss,
and their arrays.

Of a weight [N, K] in blocks of g: ``codes`` uint8 [N, K * bits / 8] of 2, 4 or 8 bits along a row, low bits first;
``scale`` fp16 [N, K / g]; ``zero_point`` of integers uint8 [N, K / g * bits / 8], each row filled up to whole bytes, of
offsets fp32 [N, K / g]. ``w = (q - zero_point) * scale``, the zero point half of all codes where there is none. A
group that is no block there is made of several with the same scale.

No number changes: an offset is a zero point of 32 bits, ``-offset / scale``: 24 bits of precision, as a product in fp32
has. Of 8 bits onnxruntime takes none of these. The levels of ``nf4`` are those of ``MatMulBnb4``, whose ``codes`` have
the first of two in the high bits; ``w = level[q] * scale``. Sources: ``docs/ContribOperators.md``, the CPU's
``matmul_nbits.cc`` and ``matmul_bnb4.cc``, onnxruntime 1.32. Knows no files and no graph.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from studio.checkpoint.tensor_writer import Slot
from studio.quantization.packing import PackedTensor, pack_bits, unpack
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import WHOLE_CHANNEL, Mode, Scheme

BLOCKS = (256, 128, 64, 32, 16)
BITS = (2, 4, 8)


@dataclass(frozen=True)
class Settings:
    """How a weight is held: ``Settings(4, 64, "U8")``."""

    bits: int
    block_size: int
    zero_point: str | None = None
    """Its dtype, None where there is none."""
    has_levels: bool = False
    """Whether codes are places in NF4's table."""

    def slots(self, shape: tuple[int, int]) -> dict[str, Slot]:
        """Return the arrays of a weight [N, K]."""
        rows, width = shape
        blocks = width // self.block_size
        found = {"codes": Slot("U8", (rows, width * self.bits // 8)), "scale": Slot("F16", (rows, blocks))}
        if self.zero_point is not None:
            wide = blocks if self.zero_point == "F32" else math.ceil(blocks * self.bits / 8)
            found["zero_point"] = Slot(self.zero_point, (rows, wide))
        return found


def settings_of(scheme: Scheme, width: int) -> Settings | None:
    """Return how onnxruntime holds weights [N, ``width``] in this scheme without loss, None where it does not."""
    mode, zero_point, has_levels = scheme.mode, None, scheme.mode == Mode.NF4
    if mode.bits not in BITS:
        return None
    if mode.is_in_blocks:
        form = mode.block_format
        if not form.is_symmetric:
            return None
        own = form.sub_block
    else:
        if mode.stored_as.scale_dtype != "F16":
            return None
        codes = mode.grid.codes
        if codes is Codes.ASYMMETRIC:
            zero_point = "U8"
        elif codes is Codes.AFFINE and mode.bits < max(BITS):
            zero_point = "F32"
        elif codes is not Codes.SYMMETRIC and not has_levels:
            return None
        own = width if scheme.group_size == WHOLE_CHANNEL else scheme.group_size
    size = next((size for size in BLOCKS if own % size == 0), None)
    return None if size is None or width % size else Settings(mode.bits, size, zero_point, has_levels)


def becomes(scheme: Scheme, width: int) -> Scheme | None:
    """Return the nearest scheme that onnxruntime holds, of about as many bits; None for a width that no block
    divides."""
    sizes = [size for size in BLOCKS if width % size == 0]
    if not sizes:
        return None
    if scheme.mode.bits > 4:
        return Scheme.parse("int8_asym")
    usual = [size for size in sizes if size in (32, 64, 128)]
    own = scheme.group_size if scheme.group_size in usual else max((s for s in usual if s <= 64), default=WHOLE_CHANNEL)
    return Scheme(Mode.INT4_ASYM, own)


def arrays_of(packed: PackedTensor) -> dict[str, Tensor]:
    """Return the arrays of :meth:`Settings.slots` for some rows of a weight that :func:`settings_of` holds."""
    width = packed.shape[1]
    settings = settings_of(packed.scheme, width)
    if settings is None:
        raise ValueError(f"onnxruntime does not hold {packed.scheme}")
    rounded = unpack(packed)
    scale = packed.scale if rounded.blocks is None else rounded.blocks.d
    repeats = width // settings.block_size // scale.shape[1]
    found = {
        "codes": _packed(rounded.codes.flatten(1), settings),
        "scale": scale.half().repeat_interleave(repeats, 1),
    }
    if settings.zero_point is not None:
        zeros = rounded.zeros() if rounded.zero_point is None else rounded.zero_point
        zeros = zeros.reshape(scale.shape).repeat_interleave(repeats, 1)
        found["zero_point"] = zeros if settings.zero_point == "F32" else _packed(zeros, settings)
    return found


def _packed(codes: Tensor, settings: Settings) -> Tensor:
    if settings.has_levels:
        return codes[:, 0::2] << 4 | codes[:, 1::2]
    return codes if settings.bits == 8 else pack_bits(codes, settings.bits)
