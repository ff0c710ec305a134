"""Steps on CUDA give the logits of float64 arithmetic on the same dequantized weights.

Bounds, as ‖logits - reference‖ / ‖reference‖. Single steps: products lose 2^-21 of their inputs; 4-bit integers are
multiplied 256 above their codes, so that a sum of 64 products in fp32 can lose 2^-23 of numbers 60 times as large as
its own, for each of four additions: 2^-15; keys and values are rounded to fp16 (2^-12 of each) and so are the levels of
nf4 (the other formats' numbers are exact), independent errors that two layers and the head do not amplify beyond 2^-9.
Prompts: both factors of every product are rounded to bf16 (2^-9 of each, on average 2^-10.4), nine products one behind
the other: 9 * sqrt(2) * 2^-9 = 2^-5.3 if all agreed, 2^-6 is asked for.
"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from studio.quantization.scheme import Mode, Scheme
from studio.runtime.native.fragments import takes
from tests.decoders import FAMILIES, LLAMA, Small, reference, small

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

STEPS, PROMPTS = 2.0**-9, 2.0**-6
INT4 = Scheme(Mode.INT4_ASYM, 64)
SCHEMES = [
    torch.bfloat16,
    torch.float16,
    *(Scheme(mode, sizes[0]) for mode in Mode if len(sizes := mode.stored_as.group_sizes) == 1),
    *(Scheme(mode, size) for mode in Mode if mode.is_grouped for size in (-1, 16, 32, 48, 64)),
]
SCHEMES = [scheme for scheme in SCHEMES if not isinstance(scheme, Scheme) or takes(scheme)]


@pytest.fixture(autouse=True)
def kernels() -> None:
    from studio.runtime.native import nvrtc

    assert nvrtc.is_available()


def decoder(model: Small):  # type: ignore[no-untyped-def]
    from studio.runtime.decoder.cuda import CudaDecoder

    return CudaDecoder(model.shape, model.read, model.norms, 4096)


def tokens_of(model: Small, count: int) -> list[int]:
    return torch.randint(model.shape.vocabulary, (count,), generator=torch.Generator().manual_seed(count)).tolist()


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    return float((found.double() - expected).norm() / expected.norm())


def compare(model: Small, count: int = 24) -> tuple[float, float]:
    """Return the errors of steps one by one and of a prompt followed by steps."""
    loaded, tokens = decoder(model), tokens_of(model, count)
    expected = reference(model, tokens)
    cache = loaded.begin(count)
    single = error(torch.stack([loaded.step(cache, [token]) for token in tokens]), expected)
    cache = loaded.begin(count)
    prompt = loaded.forward_all(cache, tokens[: count - 4])
    rest = torch.stack([loaded.step(cache, [token]) for token in tokens[count - 4 :]])
    assert cache.length == count
    assert cache.room == 0
    return single, error(torch.cat((prompt, rest)), expected)


def within(errors: Sequence[float]) -> bool:
    return errors[0] < STEPS and errors[1] < PROMPTS


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_scheme(scheme: Scheme | torch.dtype) -> None:
    assert within(compare(small(LLAMA, scheme)))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    assert within(compare(small(FAMILIES[family], INT4, has_bias=family == "qwen2")))


def test_biases_everywhere_and_schemes_that_do_not_go_together() -> None:
    special = {"v": Scheme(Mode.INT8_ASYM), "up": Scheme(Mode.NF4, 32), "head": Scheme(Mode.INT8_SYM)}
    assert within(compare(small(LLAMA, INT4, special, has_bias=True)))
    assert within(compare(small(LLAMA, Scheme(Mode.NVFP4, 16), has_bias=True)))


def test_a_long_text_in_pieces_of_any_length() -> None:
    model = small(LLAMA, torch.bfloat16)
    loaded, tokens = decoder(model), tokens_of(model, 1500)
    expected = reference(model, tokens)
    cache = loaded.begin(2000)
    start = 0
    for count in [*[128] * 11, 1, 5, 60, 7, 9, 10]:
        found = loaded.step(cache, tokens[start : start + count])
        start += count
        assert error(found, expected[start - 1]) < PROMPTS
    assert start == len(tokens)
    for position in (700, 40):
        cache.rewind(position)
        assert error(loaded.step(cache, [tokens[position]]), expected[position]) < PROMPTS


def test_texts_do_not_disturb_each_other_and_steps_repeat() -> None:
    model = small(LLAMA, INT4)
    loaded = decoder(model)
    texts = [tokens_of(model, count) for count in (30, 31)]
    alone = []
    for text in texts:
        cache = loaded.begin(64)
        alone.append([loaded.step(cache, [token]) for token in text])
    caches = [loaded.begin(64) for _ in texts]
    for index in range(30):
        for text, cache, expected in zip(texts, caches, alone, strict=True):
            assert torch.equal(loaded.step(cache, [text[index]]), expected[index])


def test_what_does_not_fit_is_refused() -> None:
    model = small(LLAMA, INT4)
    loaded = decoder(model)
    cache = loaded.begin(10)
    for tokens in ([], [0] * 11, [500], [-1]):
        with pytest.raises(ValueError, match="do not fit"):
            loaded.step(cache, tokens)
    assert cache.length == 0
    loaded.step(cache, [0] * 10)
    with pytest.raises(ValueError, match="do not fit"):
        loaded.step(cache, [0])
