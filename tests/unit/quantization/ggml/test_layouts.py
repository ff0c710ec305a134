"""ggml's formats have one place: sizes and file types there are gguf's own, and a mode follows from each."""

import gguf
import pytest

from studio.quantization.ggml.layouts import LAYOUTS
from studio.quantization.mode import Mode

every_layout = pytest.mark.parametrize("name", LAYOUTS)


@every_layout
def test_a_mode_is_stored_as_its_layout_says(name: str) -> None:
    layout, form = LAYOUTS[name], Mode(name).stored_as
    assert form.block == (layout.block, layout.block_bytes)
    assert (form.bits, form.group_sizes, form.misfit) == (layout.bits, (layout.sub_block,), layout.misfit)
    assert Mode(name).block_format.bits == layout.bits
    assert Mode(name).grid.bits == layout.bits


@every_layout
def test_what_stands_in_for_a_misfit_has_smaller_blocks(name: str) -> None:
    other = LAYOUTS[name].misfit
    assert not other or LAYOUTS[other].block < LAYOUTS[name].block


@every_layout
def test_a_file_is_named_after_the_type_that_most_of_it_is(name: str) -> None:
    assert gguf.LlamaFileType(LAYOUTS[name].file_type).name.startswith(f"MOSTLY_{name.upper()}")


@every_layout
def test_sizes_are_gguf_s(name: str) -> None:
    sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name.upper()]]
    assert (LAYOUTS[name].block, LAYOUTS[name].block_bytes) == sizes
