"""A packed weight as constants of OpenVINO: which schemes it holds without loss, and their bytes.

Of a weight [N, K] in groups of g: codes [N, K / g, g] of 2, 4 or 8 bits, low bits first, running on from row to row;
``scale`` fp16 [N, K / g, 1]; ``zero_point`` of the codes' own type, one a group. ``w = (q - zero_point) * scale``.
A group that is the whole channel has no middle dimension. No number changes: codes about zero are the same in two's
complement, and NF4's sixteen levels are OpenVINO's. An offset is a zero point of 32 bits, ``-offset / scale``: 24 bits
of precision, as a product in fp32 has; one of 16 bits would have 11.

Source: ``openvino.Type`` and what the CPU plugin keeps compressed, OpenVINO 2026.4. Knows no files and no graph.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.quantization.formats import Mode
from studio.quantization.packing import PackedTensor, pack_bits, unpack
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import WHOLE_CHANNEL, Scheme

BITS = {"u2": 2, "u4": 4, "i4": 4, "nf4": 4, "u8": 8, "i8": 8, "f16": 16, "bf16": 16, "f32": 32, "i32": 32, "i64": 64}
"""Of a number, by OpenVINO's name of its type."""
GROUP_SIZES = (32, 64, 128, 256)


@dataclass(frozen=True)
class Part:
    """One constant: ``Part("u4", (576, 9, 64))``."""

    type: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.ceil(math.prod(self.shape) * BITS[self.type] / 8)


@dataclass(frozen=True)
class Constants:
    """How OpenVINO holds weights of a scheme: ``Constants("u4", 64, "u4")``."""

    codes: str
    group_size: int
    """-1 for the whole channel."""
    zero_point: str | None = None
    """Its type, None where there is none."""

    @property
    def is_gathered(self) -> bool:
        """Whether OpenVINO keeps it compressed also where rows are looked up, as an embedding's are."""
        return self.codes in ("u4", "i4", "u8", "i8")

    def parts(self, shape: tuple[int, int]) -> dict[str, Part]:
        """Return the constants of a weight [N, K], in the order of the file."""
        rows, width = shape
        is_whole = self.group_size == WHOLE_CHANNEL
        lead = (rows,) if is_whole else (rows, width // self.group_size)
        parts = {"codes": Part(self.codes, (*lead, width if is_whole else self.group_size))}
        if self.zero_point is not None:
            parts["zero_point"] = Part(self.zero_point, (*lead, 1))
        return parts | {"scale": Part("f16", (*lead, 1))}


def constants_of(scheme: Scheme, width: int) -> Constants | None:
    """Return how OpenVINO holds weights [N, ``width``] in this scheme without loss, None where it does not."""
    mode = scheme.mode
    if mode.is_in_blocks or mode.stored_as.scale_dtype != "F16" or width * mode.bits % 8:
        return None
    size = WHOLE_CHANNEL if scheme.group_size >= width else scheme.group_size
    codes, bits = mode.grid.codes, mode.bits
    if mode == Mode.NF4:
        return Constants("nf4", size)
    if codes is Codes.SYMMETRIC and bits in (4, 8):
        return Constants(f"i{bits}", size)
    if codes is Codes.ASYMMETRIC and bits in (4, 8):
        return Constants(f"u{bits}", size, f"u{bits}")
    if codes is Codes.AFFINE and bits in (2, 4, 8):
        return Constants(f"u{bits}", size, "f32")
    return None


def becomes(scheme: Scheme, width: int) -> Scheme | None:
    """Return the nearest scheme that OpenVINO holds, of about as many bits; None for a width that no byte divides."""
    if width % 2:
        return None
    if scheme.mode.bits > 4:
        return Scheme.parse("int8_asym")
    sizes = [size for size in GROUP_SIZES if width % size == 0]
    own = scheme.group_size if scheme.group_size in sizes else max((s for s in sizes if s <= 64), default=WHOLE_CHANNEL)
    return Scheme(Mode.INT4_ASYM, own)


def bytes_of(packed: PackedTensor) -> dict[str, Tensor]:
    """Return the bytes of the constants of some rows of a weight that :func:`constants_of` holds, uint8, one after the
    other as :meth:`Constants.parts` names them."""
    form = constants_of(packed.scheme, packed.shape[1])
    if form is None:
        raise ValueError(f"OpenVINO does not hold {packed.scheme}")
    rounded = unpack(packed)
    codes = rounded.codes
    if form.codes.startswith("i"):  # half the range less, in two's complement
        codes = codes ^ (1 << BITS[form.codes] - 1)
    found = {"codes": codes if BITS[form.codes] == 8 else pack_bits(codes, BITS[form.codes])}
    if form.zero_point == "f32":
        found["zero_point"] = rounded.zeros()
    elif form.zero_point is not None and rounded.zero_point is not None:
        zeros = rounded.zero_point.flatten()
        found["zero_point"] = zeros if BITS[form.zero_point] == 8 else pack_bits(zeros, BITS[form.zero_point])
    found["scale"] = packed.scale
    return {name: array.contiguous().flatten().view(torch.uint8) for name, array in found.items()}
