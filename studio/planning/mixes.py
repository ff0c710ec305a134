"""llama.cpp's mixes: which of its types each tensor takes under a name that people search for. Knows no choices.

Source: ``llama-quant.cpp``, read at b9000; there they are chosen by folklore and kept by habit. A width that a
type's blocks do not divide takes the type that llama.cpp takes then (``Format.misfit``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from studio.checkpoint.layers import Kind, Layer
from studio.quantization.scheme import Mode, Scheme


@dataclass(frozen=True)
class Mix:
    """A mix: ``Mix("q4_k_m", "q4_k", "q6_k", ...)``."""

    name: str
    usual: str
    """The mode of most weights."""
    head: str
    """That of the output, and of the embedding where they are one."""
    costly: Callable[["Place"], str | None] = lambda _: None
    """The mode of a weight that takes another, None for the usual one."""

    def schemes(self, layers: Sequence[Layer]) -> dict[str, Scheme]:
        """Return the scheme of every weight, by name; one that no block divides is left out, and stays at 16 bits."""
        has_head = any(layer.kind is Kind.HEAD for layer in layers)
        blocks = len({layer.block for layer in layers if layer.block is not None})
        share = _heads_sharing_keys(layers)
        found: dict[str, Scheme] = {}
        for layer in layers:
            if not layer.is_weight:
                continue
            is_head = layer.kind is Kind.HEAD or (layer.kind is Kind.EMBEDDING and not has_head)
            place = Place(layer, blocks, share)
            mode = self.head if is_head else self.costly(place) or self.usual
            scheme = fitting(mode, layer.matrix[1])
            if scheme is not None:
                found[layer.name] = scheme
        return found


@dataclass(frozen=True)
class Place:
    """Where a weight stands."""

    layer: Layer
    blocks: int
    share: int
    """How many heads share their keys."""

    @property
    def is_value(self) -> bool:
        """Whether it makes values, alone or fused with queries and keys."""
        return self.layer.name.endswith((".v_proj.weight", ".qkv_proj.weight"))

    @property
    def is_down(self) -> bool:
        return self.layer.name.endswith(".down_proj.weight")

    @property
    def counts_more(self) -> bool:
        """Whether it stands in the first or the last eighth of the blocks, or is every third between."""
        block, count = self.layer.block, self.blocks
        if block is None:
            return False
        return block < count // 8 or block >= 7 * count // 8 or (block - count // 8) % 3 == 2


def fitting(mode: str, width: int) -> Scheme | None:
    """Return a mode's scheme for rows of ``width``, or that of the mode that stands in for it; None where none fits."""
    while mode:
        scheme = Scheme.of(Mode(mode), 32)
        if scheme.fits(width):
            return scheme
        mode = Mode(mode).stored_as.misfit
    return None


def _heads_sharing_keys(layers: Sequence[Layer]) -> int:
    rows = {layer.name.rsplit(".", 2)[-2]: layer.matrix[0] for layer in layers if layer.is_weight and layer.block == 0}
    return rows["q_proj"] // rows["k_proj"] if {"q_proj", "k_proj"} <= rows.keys() else 1


def _more_bits(mode: str) -> Callable[[Place], str | None]:
    return lambda place: mode if (place.is_value or place.is_down) and place.counts_more else None


MIXES = {
    mix.name: mix
    for mix in (
        Mix("q4_k_m", "q4_k", "q6_k", _more_bits("q6_k")),
        Mix("q5_k_m", "q5_k", "q6_k", _more_bits("q6_k")),
        Mix("q6_k", "q6_k", "q6_k"),
        Mix("q8_0", "q8_0", "q8_0"),
        Mix("iq4_xs", "iq4_xs", "q6_k", lambda place: "q5_k" if place.is_value and place.share >= 4 else None),
        Mix("q4_0", "q4_0", "q6_k"),
    )
}
"""By name, in the order of the menu. A new one is a line here."""
NONE = "none"
