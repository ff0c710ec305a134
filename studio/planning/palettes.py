"""What a budget chooses among: the schemes that each target can hold. Knows no layers and no files.

A target of ``export/targets.py`` has the palette of its name; a test holds both to that.
"""

from dataclasses import dataclass

from studio.checkpoint.layers import Kind, Layer
from studio.quantization.scheme import Mode, Scheme


@dataclass(frozen=True)
class Palette:
    """``Palette("studio", (Scheme(Mode.INT4_ASYM, 64), …))``; 16 bits are always among them."""

    name: str
    schemes: tuple[Scheme, ...]
    vector_bytes: int = 2
    """Of a number of what is never compressed and has one dimension: norms and biases."""

    def fitting(self, width: int) -> list[Scheme]:
        """Return the schemes for rows of ``width``."""
        return [scheme for scheme in self.schemes if scheme.fits(width)]

    def nbytes(self, layer: Layer, scheme: Scheme | None) -> int:
        """Return what a tensor takes there; None for 16 bits."""
        if scheme is not None:
            return scheme.nbytes(layer.matrix)
        return layer.numel * (self.vector_bytes if layer.kind is Kind.OTHER and len(layer.shape) == 1 else 2)


_STUDIO = (
    "int4_asym-g128", "int4_asym-g64", "nf4-g64", "int4_asym-g32", "nf4-g32", "int5_sym-g64", "int5_sym-g32",
    "int8_asym",
)  # fmt: skip

PALETTES: dict[str, Palette] = {
    palette.name: palette
    for palette in (
        Palette("studio", tuple(Scheme.parse(name) for name in _STUDIO)),
        Palette("gguf", tuple(Scheme.of(mode, 32) for mode in Mode if mode.is_in_blocks), vector_bytes=4),
    )
}
"""By the name of the target. A new one is a line here."""
DEFAULT = "studio"
