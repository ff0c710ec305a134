"""Tiles hold what a file holds: ggml's blocks to the last bit of gguf-py's numbers, in about as many bytes."""

import gguf
import pytest
import torch
from torch import Tensor

from studio.quantization.ggml.blocks import BlockFormat, Blocks, steps
from studio.quantization.ggml.formats import BLOCK_FORMATS
from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.native import tiling
from studio.runtime.native.products import decoding, look_up, multiply
from studio.runtime.native.tile_codes import lanes, octets, words
from studio.runtime.native.tiles import Kind, Tiles
from studio.runtime.native.tiling import tiles_of

in_every_format = pytest.mark.parametrize("name", BLOCK_FORMATS)
needs_compiler = pytest.mark.skipif(decoding() is None, reason="needs a C compiler")
LARGER = {"q2_k": 1.2, "q3_k": 1.04, "q4_k": 1.03, "q5_k": 1.03, "iq4_xs": 1.02}
"""How many times a file's bytes tiles take at most: small integers have a byte each, not 4 or 6 bits. Others: 1."""


def any_blocks(name: str, rows: int, blocks: int) -> PackedTensor:
    """Return a weight of random bytes, whose 16-bit numbers are any that are finite."""
    form = BLOCK_FORMATS[name]
    generator = torch.Generator().manual_seed(len(name))
    whole = form.unpack(torch.randint(0, 256, (rows, blocks * form.block_bytes), generator=generator).to(torch.uint8))

    def finite(numbers: Tensor | None) -> Tensor | None:
        return None if numbers is None else torch.where(numbers.isfinite(), numbers, torch.tensor(6e-8).half())

    d = finite(whole.d)
    assert d is not None
    packed = form.pack(Blocks(whole.codes, d, finite(whole.dmin), whole.scales, whole.mins))
    return PackedTensor.of(Scheme.of(Mode(name), -1), (rows, blocks * form.block), {"blocks": packed})


@needs_compiler
@in_every_format
def test_rows_are_gguf_pys_to_the_last_bit(name: str) -> None:
    """Whatever the file holds: numbers of any size, scales of 0, negative ones."""
    weight = any_blocks(name, 50, 5)
    theirs = gguf.quants.dequantize(weight.codes.numpy(), gguf.GGMLQuantizationType[name.upper()])
    rows = look_up(tiles_of(weight), torch.arange(50))
    assert torch.equal(rows, torch.from_numpy(theirs).float())


@in_every_format
def test_tiles_take_about_the_bytes_of_the_file(name: str) -> None:
    weight = any_blocks(name, 48, 3)
    tiles = tiles_of(weight)
    levels = 0 if tiles.levels is None else tiles.levels.nbytes
    assert 1 <= (tiles.nbytes - levels) / weight.scheme.nbytes(weight.shape) <= LARGER.get(name, 1)


@pytest.mark.parametrize("scheme", [*BLOCK_FORMATS, "int5_sym-g32", "int8_asym", "int3_sym-g64", "int6_affine-g64"])
def test_slabs_meet_without_a_seam(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Scheme.parse(scheme)
    weight = pack(round_to_nearest(torch.randn(70, 256), kind), kind)
    whole = tiles_of(weight)
    monkeypatch.setattr(tiling, "SLAB", 20 * 256)
    pieces = tiles_of(weight)
    assert whole.arrays.keys() == pieces.arrays.keys()
    assert all(torch.equal(array, pieces.arrays[name]) for name, array in whole.arrays.items())


@pytest.mark.parametrize(
    "form",
    [
        BlockFormat("seven", 32, 32, 30, steps(0, 128)),
        BlockFormat("twenty", 40, 20, 22, steps(0, 16)),
        BlockFormat("halves", 32, 32, 18, tuple(i / 2 for i in range(16))),
        BlockFormat("wide", 32, 32, 18, tuple(float(i * i) for i in range(2, 18))),
        BlockFormat("added", 32, 32, 18, tuple(float(i * i) for i in range(16)), has_offset=True),
        BlockFormat("large", 256, 32, 144, steps(0, 16), (0, 255)),
        BlockFormat("short", 16, 16, 12, steps(0, 32)),
    ],
    ids=lambda form: form.name,
)
def test_block_formats_that_no_kernel_reads_are_not_taken(form: BlockFormat) -> None:
    assert tiling._kind_of_blocks(form) is None


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("group", [16, 32, 64, 128])
@pytest.mark.parametrize(("bits", "kind"), tiling.BY_BITS.items())
def test_codes_under_a_scale_and_an_offset_of_any_group(kind: Kind, bits: int, group: int, dtype: torch.dtype) -> None:
    """What no scheme of today has: w = code * scale + offset, both of fp16 or fp32 for each group."""
    rows, width = 20, 256
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, (rows, width), generator=generator).to(torch.uint8)
    scale, offset = (torch.randn(rows, width // group, generator=generator).to(dtype) for _ in range(2))
    laid = octets(codes, width) if bits == 8 else words(codes, bits, width)
    block = next(size for size in (64, 32, 16) if group % size == 0)
    tiles = Tiles(kind, rows, width, group, laid, block, scale=lanes(scale), offset=lanes(offset))
    wide = [part.double().repeat_interleave(group, 1) for part in (scale, offset)]
    exact = codes.double() * wide[0] + wide[1]
    x = torch.randn(7, width, generator=generator)
    error = (multiply(tiles, x).double() - x.double() @ exact.T).abs()
    largest = x.reshape(7, -1, block).abs().amax(2).repeat_interleave(block, 1).double()
    allowed = (largest / 65534 * (1 + 2**-6)) @ exact.abs().T
    allowed += (width + 8) * 2.0**-24 * (x.abs().double() @ (exact.abs() + 2 * wide[1].abs()).T)
    assert bool((error <= allowed).all())
    rows_ = look_up(tiles, torch.arange(rows))
    assert torch.allclose(rows_.double(), exact, rtol=2**-23, atol=float(wide[1].abs().max()) * 2**-23)
