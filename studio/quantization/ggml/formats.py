"""ggml's formats by name, and as grids for whoever asks for one number at a time. Knows no files."""

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import BlockFormat
from studio.quantization.ggml.fit import fit, nearest
from studio.quantization.ggml.layouts import LAYOUTS
from studio.quantization.registry import later
from studio.quantization.rounding.quantized_weight import NumberFormat

BLOCK_FORMATS: dict[str, BlockFormat] = {
    name: later(f"{__package__}.{layout.module}", name.upper())() for name, layout in LAYOUTS.items()
}


def grid(name: str) -> NumberFormat:
    """Return the grid of one sub-block: its levels, between which weights over their scale are rounded."""
    form = BLOCK_FORMATS[name]

    def round_(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        blocks = fit(grouped.flatten(1), form)
        return blocks.codes.reshape(grouped.shape), blocks.scale(), None

    def encode(normal: Tensor, _: Tensor | None) -> Tensor:
        return nearest(form, normal, torch.ones((), dtype=torch.float32, device=normal.device), None)

    return NumberFormat(round_, lambda codes, _: form.values(codes), encode, bits=form.bits)
