"""ggml's block formats in numbers: sizes, the file type, and where the code is that packs them. Knows no tensor.

The one place for them: ``formats.py`` above registers a mode for each, ``simple.py`` and ``k_quants.py`` pack by them,
the GGUF target names the file after them. Sources: ``ggml-common.h``, and ``llama_ftype`` of ``llama.h``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockLayout:
    """One format: ``BlockLayout("k_quants", 4, 256, 32, 144, 15, misfit="q5_0")`` is Q4_K."""

    module: str
    """The file beside this one that packs it, where it is called as here in upper case."""
    bits: int
    """Of one code."""
    block: int
    """Weights of a super-block."""
    sub_block: int
    """Weights that share scale and offset."""
    block_bytes: int
    file_type: int
    """llama.cpp's number for "mostly this type" (``llama_ftype``): it is shown, and nothing follows from it."""
    misfit: str = ""
    """The mode that a weight takes whose width the block does not divide, as llama.cpp has it."""
    is_backup: bool = False
    """Whether sensitive layers, embeddings and the head can take it."""


LAYOUTS = {
    "q4_0": BlockLayout("simple", 4, 32, 32, 18, 2),
    "q4_1": BlockLayout("simple", 4, 32, 32, 20, 3),
    "q5_0": BlockLayout("simple", 5, 32, 32, 22, 8),
    "q5_1": BlockLayout("simple", 5, 32, 32, 24, 9),
    "q8_0": BlockLayout("simple", 8, 32, 32, 34, 7, is_backup=True),
    "iq4_nl": BlockLayout("simple", 4, 32, 32, 18, 25),
    "q2_k": BlockLayout("k_quants", 2, 256, 16, 84, 10, "iq4_nl"),
    "q3_k": BlockLayout("k_quants", 3, 256, 16, 110, 12, "iq4_nl"),
    "q4_k": BlockLayout("k_quants", 4, 256, 32, 144, 15, "q5_0"),
    "q5_k": BlockLayout("k_quants", 5, 256, 32, 176, 17, "q5_1"),
    "q6_k": BlockLayout("k_quants", 6, 256, 16, 210, 18, "q8_0", is_backup=True),
    "iq4_xs": BlockLayout("k_quants", 4, 256, 32, 136, 30, "iq4_nl"),
}
"""By mode, in the order of the menu."""


def sizes_of(name: str) -> tuple[str, int, int, int]:
    """Return what a ``BlockFormat`` begins with: name, weights of a super-block and of a sub-block, bytes."""
    layout = LAYOUTS[name]
    return name, layout.block, layout.sub_block, layout.block_bytes
