"""ggml's blocks: gguf-py's dequantizer reads from our bytes the numbers that we meant, in every bit."""

import gguf
import numpy as np
import pytest
import torch

from studio.quantization.ggml import k_quants, simple
from studio.quantization.ggml.blocks import BlockFormat, Blocks

FORMATS = {
    form.name: form for module in (simple, k_quants) for form in vars(module).values() if isinstance(form, BlockFormat)
}
every_format = pytest.mark.parametrize("form", FORMATS.values(), ids=list(FORMATS))


def made(form: BlockFormat, rows: int = 5, blocks: int = 3) -> Blocks:
    """Return a weight whose every field has any value that it can have."""
    torch.manual_seed(len(form.name))
    width = blocks * form.block
    groups = width // form.sub_block

    def integers(span: tuple[int, int] | None) -> torch.Tensor | None:
        return None if span is None else torch.randint(span[0], span[1] + 1, (rows, groups), dtype=torch.int16)

    return Blocks(
        torch.randint(0, len(form.levels), (rows, width)).to(torch.uint8),
        torch.randn(rows, blocks).half(),
        torch.randn(rows, blocks).half() if form.has_offset else None,
        integers(form.scale_range),
        integers(form.min_range),
    )


@every_format
def test_gguf_reads_what_was_meant(form: BlockFormat) -> None:
    blocks = made(form)
    packed = form.pack(blocks)
    assert packed.shape == (5, 3 * form.block_bytes)
    assert packed.numel() == form.nbytes((5, 3 * form.block))
    theirs = gguf.quants.dequantize(packed.numpy(), gguf.GGMLQuantizationType[form.name.upper()])
    assert np.array_equal(theirs, form.dequantize(blocks).numpy())


@every_format
def test_unpacking_undoes_packing(form: BlockFormat) -> None:
    blocks = made(form)
    back = form.unpack(form.pack(blocks))
    for name in ("codes", "d", "dmin", "scales", "mins"):
        mine, theirs = getattr(blocks, name), getattr(back, name)
        assert (mine is None) == (theirs is None), name
        assert mine is None or torch.equal(mine.to(theirs.dtype), theirs), name


@every_format
def test_the_bytes_of_a_block_are_gguf_s(form: BlockFormat) -> None:
    assert (form.block, form.block_bytes) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[form.name.upper()]]
