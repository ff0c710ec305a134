"""Compiled code reads and writes nothing beyond what it was given: every array ends at a page that nobody may touch,
and what is not filled holds NaN. A mistake ends the process."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from studio.quantization.native.round_to_nearest import channel_error, measures, pack_nearest, squared_errors
from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.decoder.cpu import NativeDecoder
from studio.runtime.native.products import decoding, look_up, multiply
from studio.runtime.native.tiles import Tiles
from studio.runtime.native.tiling import takes, tiles_of, tiles_of_floats
from tests.decoders import FAMILIES, LLAMA, Small, small
from tests.guarded import Guarded, guarded

pytestmark = pytest.mark.skipif(decoding() is None, reason="needs a C compiler")
SCHEMES = [
    *(Scheme(mode, sizes[0]) for mode in Mode if len(sizes := mode.stored_as.group_sizes) == 1),
    *(Scheme(mode, size) for mode in Mode if mode.is_grouped for size in (-1, 16, 32, 96, 64)),
]
INT4 = Scheme(Mode.INT4_ASYM, 64)
SHAPES = [(1, 64), (17, 192), (50, 576), (33, 1), (16, 49), (1, 256), (33, 512)]
COUNTS = (1, 3, 5, 11)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    torch.set_num_threads(2)
    with guarded(monkeypatch) as place:
        yield place


def at_the_end(tiles: Tiles, memory: Guarded) -> Tiles:
    return tiles.with_arrays({name: memory.copy(array) for name, array in tiles.arrays.items()})


def of(weight: PackedTensor | Tensor, bias: Tensor | None = None) -> Tiles:
    return tiles_of(weight, bias) if isinstance(weight, PackedTensor) else tiles_of_floats(weight, bias)


@pytest.mark.parametrize("scheme", [*filter(takes, SCHEMES), torch.float16, torch.bfloat16], ids=str)
def test_products(scheme: Scheme | torch.dtype, memory: Guarded) -> None:
    for rows, width in SHAPES:
        if isinstance(scheme, Scheme) and not scheme.fits(width):
            continue
        weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(1))
        made = weight.to(scheme) if isinstance(scheme, torch.dtype) else pack(round_to_nearest(weight, scheme), scheme)
        tiles = of(made, torch.ones(rows))
        for count in COUNTS:
            x = torch.ones(count, width)
            found = multiply(at_the_end(tiles, memory), memory.copy(x))
            assert torch.equal(found, multiply(tiles, x))
            assert bool(found.isfinite().all())
        indices = memory.copy(torch.tensor([rows - 1, 0, rows // 2]))
        assert torch.equal(look_up(at_the_end(tiles, memory), indices), look_up(tiles, indices))


def speaking(model: Small, memory: Guarded, patch: pytest.MonkeyPatch) -> NativeDecoder:
    tiles = {name: at_the_end(of(w, model.biases.get(name)), memory) for name, w in model.weights.items()}

    def own(self: Any, numbers: Tensor) -> Tensor:
        kept = memory.copy(numbers.float())
        self._kept.append(kept)
        return kept

    patch.setattr(NativeDecoder, "_own", own)
    return NativeDecoder(model.shape, tiles, model.norms, 64)


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_whole_steps(family: str, bits: int, memory: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the last position that a cache has."""
    decoder = speaking(small(FAMILIES[family], INT4, has_bias=family == "qwen2"), memory, monkeypatch)
    if bits not in decoder.kv_bits:
        pytest.skip("two halves of a span would not share bytes")
    cache = decoder.begin(32, bits)
    tokens = [index * 7 % decoder.shape.vocabulary for index in range(32)]
    assert bool(decoder.forward_all(cache, tokens[:11]).isfinite().all())
    assert bool(decoder.states(cache, tokens[11:14]).isfinite().all())
    assert bool(decoder.step(cache, tokens[14:31]).isfinite().all())
    assert bool(decoder.step(cache, tokens[31:]).isfinite().all())
    assert cache.room == 0


@pytest.mark.parametrize("scheme", [*filter(takes, SCHEMES), torch.float16, torch.bfloat16], ids=str)
def test_steps_of_every_scheme(scheme: Scheme | torch.dtype, memory: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = LLAMA
    if isinstance(scheme, Scheme) and not scheme.fits(LLAMA.hidden):
        shape = replace(LLAMA, hidden=256, heads=8, intermediate_size=512)
    decoder = speaking(small(shape, scheme), memory, monkeypatch)
    cache = decoder.begin(16)
    assert bool(decoder.step(cache, [1, 2, 499, 0, 3]).isfinite().all())
    assert bool(decoder.step(cache, [499]).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 32), (3, 96), (5, 37), (1, 1)], ids=str)
def test_rounding_and_measuring(shape: tuple[int, int], dtype: torch.dtype, memory: Guarded) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    schemes = [scheme for scheme in SCHEMES if scheme.fits(shape[1])]
    for scheme in schemes:
        found = pack_nearest(memory.copy(weight), scheme)
        if found is not None:
            expected = pack(round_to_nearest(weight, scheme), scheme).arrays()
            assert all(torch.equal(found[0].arrays()[name], array) for name, array in expected.items())
    measured = squared_errors(memory.copy(weight), schemes)
    assert measured is not None
    assert set(measured[0]) == {scheme for scheme in schemes if measures(scheme.mode)}
    assert channel_error(memory.copy(weight)) == measured[2]
