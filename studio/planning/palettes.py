"""What a budget chooses among: the schemes that each target can hold, and what they take there. Knows no files.

A target of ``export/targets.py`` has the palette of its name; a test holds both to that, bytes included.
"""

from collections.abc import Callable
from dataclasses import dataclass

from studio.checkpoint.layers import Kind, Layer
from studio.planning.fused import JOINED, Joined
from studio.quantization.scheme import WHOLE_CHANNEL, Mode, Scheme


def _is_held(layer: Layer, scheme: Scheme) -> bool:
    return True


def _nothing(layer: Layer, scheme: Scheme) -> int:
    return 0


@dataclass(frozen=True)
class Palette:
    """``Palette("studio", (Scheme(Mode.INT4_ASYM, 64), …))``; 16 bits are always among them."""

    name: str
    schemes: tuple[Scheme, ...]
    vector_bytes: int = 2
    """Of a number of what is never compressed and has one dimension: norms and biases."""
    holds: Callable[[Layer, Scheme], bool] = _is_held
    """Whether this weight can be in that scheme, whose groups divide its rows."""
    beside: Callable[[Layer, Scheme], int] = _nothing
    """Bytes that a weight takes there beyond those of the scheme."""
    joined: Joined = ()
    """Modules of one parent that have one scheme, by name."""

    def fitting(self, width: int) -> list[Scheme]:
        """Return the schemes for rows of ``width``."""
        return [scheme for scheme in self.schemes if scheme.fits(width)]

    def offered(self, layer: Layer) -> list[Scheme]:
        """Return the schemes that a weight can be in."""
        return [scheme for scheme in self.fitting(layer.matrix[1]) if self.holds(layer, scheme)]

    def nbytes(self, layer: Layer, scheme: Scheme | None) -> int:
        """Return what a tensor takes there; None for 16 bits."""
        if scheme is not None:
            return scheme.nbytes(layer.matrix) + self.beside(layer, scheme)
        return layer.numel * (self.vector_bytes if layer.kind is Kind.OTHER and len(layer.shape) == 1 else 2)


def _schemes(*names: str) -> tuple[Scheme, ...]:
    return tuple(Scheme.parse(name) for name in names)


def _wide_offsets(layer: Layer, scheme: Scheme) -> int:
    """OpenVINO's: an offset is a zero point of 32 bits."""
    rows, width = layer.matrix
    return 2 * rows * scheme.groups(width) if scheme.mode.stored_as.has_offset else 0


def _in_blocks(layer: Layer, scheme: Scheme) -> int:
    """onnxruntime's: a channel is made of blocks, each with a scale and a zero point, a row's filled up to bytes."""
    rows, width = layer.matrix
    size = width if scheme.group_size == WHOLE_CHANNEL else scheme.group_size
    blocks = width // next((block for block in (256, 128, 64, 32, 16) if size % block == 0), size)
    zero_points = 4 * blocks if scheme.mode.stored_as.has_offset else -(-blocks * scheme.mode.bits // 8)
    return rows * (width * scheme.mode.bits // 8 + 2 * blocks + zero_points) - scheme.nbytes(layer.matrix)


PALETTES: dict[str, Palette] = {
    palette.name: palette
    for palette in (
        Palette("studio", _schemes(
            "int4_asym-g128", "int4_asym-g64", "nf4-g64", "int4_asym-g32", "nf4-g32", "int5_sym-g64", "int5_sym-g32",
            "int8_asym",
        )),
        Palette("gguf", tuple(Scheme.of(mode, 32) for mode in Mode if mode.is_in_blocks), vector_bytes=4),
        Palette("mlx", _schemes(
            "int2_affine-g64", "int3_affine-g64", "int3_affine-g32", "int4_affine-g128", "int4_affine-g64",
            "int4_affine-g32", "int5_affine-g64", "int6_affine-g64", "int8_affine-g64",
        )),
        Palette(
            "openvino", _schemes(
                "int4_asym-g128", "int4_asym-g64", "nf4-g64", "int4_asym-g32", "nf4-g32", "int4_affine-g32",
                "int8_asym",
            ),
            holds=lambda layer, scheme: layer.kind is not Kind.EMBEDDING or scheme.mode != Mode.NF4,
            beside=_wide_offsets,
        ),
        Palette(
            "onnx", _schemes(
                "int4_asym-g128", "int4_asym-g64", "int4_asym-g32", "int4_affine-g64", "int4_affine-g32", "int8_asym",
            ),
            vector_bytes=4, beside=_in_blocks,
        ),
        Palette(
            "compressed-tensors", _schemes("int4_sym-g128", "int4_sym-g64", "int4_sym-g32", "int8_sym"),
            holds=lambda layer, scheme: layer.kind is Kind.LINEAR,  # what vLLM and transformers pack
            beside=lambda layer, scheme: 16,  # its shape, in 64 bits
            joined=JOINED,
        ),
    )
}  # fmt: skip
"""By the name of the target. A new one is a line here."""
DEFAULT = "studio"
