"""On a CUDA device the same files answer through its kernels, with transformers' logits on the same weights."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tests.integration.test_decoder as processor
from studio.base import device
from studio.base.settings import settings
from studio.chat.answer import LoadedModel, ModelInfo, answer
from studio.cli.report import answer_facts
from studio.planning.choice import Choice
from studio.runtime import machine
from studio.runtime.decoder import Backend, open_compressed, open_original
from studio.runtime.model import load_tokenizer
from studio.runtime.native import fragments
from studio.runtime.sampling import Sampling
from tests.integration.test_decoder import (
    MODES,
    compressed,
    dequantized,
    distance,
    ids,
    logits,
    of_every_family,
    opened,
)
from tests.steps import finish

source = processor.source
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

STEPS, PROMPTS = 2.0**-8, 2.0**-5
"""Relative distances of each token's logits, twice what ``tests/unit/runtime/decoder/test_cuda.py`` derives for all of
a text's together."""
INT4 = Choice.of("int4_asym", 32, 1, "int8_asym")


@pytest.fixture(autouse=True)
def _on_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STUDIO_DEVICE", "cuda")
    settings.cache_clear()
    device.device.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()
    device.device.cache_clear()


def assert_as(decoder: object, expected: torch.Tensor, backend: Backend = Backend.CUDA) -> None:
    assert decoder.backend is backend  # type: ignore[attr-defined]
    found = decoder.forward_all(decoder.begin(64), ids())  # type: ignore[attr-defined]
    assert distance(found, expected) < PROMPTS
    cache = decoder.begin(64)  # type: ignore[attr-defined]
    found = torch.stack([decoder.step(cache, [token]) for token in ids()])  # type: ignore[attr-defined]
    assert distance(found, expected) < STEPS


@of_every_family
def test_the_original(source: Callable[[str], Path], family: str) -> None:
    folder = source(family)
    assert_as(open_original(opened(folder)), logits(processor.reference(folder), ids()))


@of_every_family
def test_the_compressed_model(source: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    exported = compressed(source(family), Choice.of("int4_asym", -1, 1, "int8_asym"), tmp_path)
    assert_as(open_compressed(exported), logits(dequantized(source(family), exported), ids()))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(source: Callable[[str], Path], mode: str, tmp_path: Path) -> None:
    """Embedding and head too. What the device has no product for answers on the processor, packed there."""
    choice = replace(Choice.of(mode, 32, 1, "none"), all_layers=not mode.startswith("int8"))
    exported = compressed(source("llama"), choice, tmp_path)
    backend = Backend.CUDA if fragments.takes(choice.primary) else Backend.NATIVE
    assert_as(open_compressed(exported), logits(dequantized(source("llama"), exported), ids()), backend)


def test_a_chat(source: Callable[[str], Path], tmp_path: Path) -> None:
    exported = compressed(source("llama"), INT4, tmp_path)
    loaded = LoadedModel(open_compressed(exported), load_tokenizer(exported))
    messages = [{"role": "user", "content": "What is the capital of France? " * 12}]
    sampling = Sampling(max_new_tokens=20, temperature=0.0)
    reply = finish(answer(loaded, messages, sampling))
    assert reply.tokens == 20 or reply.ended == "stop"
    assert reply.kv_bytes > 0
    assert 0 < reply.kv_bytes <= loaded.decoder.free_bytes()
    assert finish(answer(loaded, messages, sampling)).text == reply.text
    facts = answer_facts(ModelInfo.of(loaded), reply)
    assert (facts["way"], facts["reason"]) == ("cuda", "")
    assert facts["limit_tokens_per_second"] > 0


def test_the_ceilings_are_the_gpus() -> None:
    here, there = machine.measured("cpu"), machine.measured("cuda")
    assert there.bandwidth > here.bandwidth
    assert there.operations > here.operations
