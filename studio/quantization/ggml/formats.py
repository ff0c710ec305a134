"""ggml's formats by name, and as grids for whoever asks for one number at a time. Knows no files."""

import torch
from torch import Tensor

from studio.quantization.ggml import k_quants, simple
from studio.quantization.ggml.blocks import BlockFormat
from studio.quantization.ggml.fit import fit, nearest
from studio.quantization.rounding.quantized_weight import NumberFormat

BLOCK_FORMATS: dict[str, BlockFormat] = {
    form.name: form
    for form in (
        simple.Q4_0, simple.Q4_1, simple.Q5_0, simple.Q5_1, simple.Q8_0, simple.IQ4_NL,
        k_quants.Q2_K, k_quants.Q3_K, k_quants.Q4_K, k_quants.Q5_K, k_quants.Q6_K, k_quants.IQ4_XS,
    )
}  # fmt: skip


def grid(name: str) -> NumberFormat:
    """Return the grid of one sub-block: its levels, between which weights over their scale are rounded."""
    form = BLOCK_FORMATS[name]

    def round_(grouped: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        blocks = fit(grouped.flatten(1), form)
        return blocks.codes.reshape(grouped.shape), blocks.scale(), None

    def encode(normal: Tensor, _: Tensor | None) -> Tensor:
        return nearest(form, normal, torch.ones((), dtype=torch.float32, device=normal.device), None)

    return NumberFormat(round_, lambda codes, _: form.values(codes), encode, bits=form.bits)
