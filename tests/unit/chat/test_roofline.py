"""The arithmetic behind what the page says of speed and memory, on numbers that were made up."""

import inspect
from typing import Any

import pytest

from studio.base.text import LANGUAGES
from studio.chat.answer import ModelInfo, Reply
from studio.chat.roofline import bytes_of_a_token, decode_limit, phases, step_weights
from studio.checkpoint.layers import Kind, Layer
from studio.runtime.decoder import KV_BITS, Backend, KeyValues, key_values
from studio.runtime.decoder.cpu import NativeCache
from studio.runtime.machine import Machine
from studio.ui.roofline import in_words, roofline
from tests.conftest import tiny_config

MACHINE = Machine(bandwidth=50e9, operations=400e9)
VOICE = ModelInfo(Backend.NATIVE, "", 100_000_000, 90_000_000, False, KV_BITS, 8192)
REPLY = Reply("", 100, 0, 101, first_token_seconds=0.2, decode_seconds=0.4, kv_bytes=20_100_000)


def test_a_token_reads_the_weights_and_the_cache_as_it_is_halfway() -> None:
    assert bytes_of_a_token(VOICE, REPLY) == pytest.approx(90e6 + 20.1e6 * 150.5 / 201)
    assert decode_limit(VOICE, REPLY, MACHINE) == pytest.approx(50e9 / bytes_of_a_token(VOICE, REPLY))


def test_an_answer_is_bound_by_memory_and_a_prompt_by_compute() -> None:
    prompt, decode = phases(1, VOICE, REPLY, 130_000_000, MACHINE)
    assert (prompt.name, decode.name) == ("prompt", "decode")
    assert prompt.operations == pytest.approx(2 * 130e6 * 500)
    assert prompt.intensity == pytest.approx(2 * 130e6 * 100 / (90e6 + 20.1e6))
    assert not prompt.is_bound_by_memory(MACHINE)
    assert prompt.share == pytest.approx(2 * 130e6 * 500 / 400e9)
    assert decode.is_bound_by_memory(MACHINE)
    # Two ways to say the same: tokens a second of the limit, operations a second of the roof.
    assert decode.share == pytest.approx(REPLY.tokens_per_second / decode_limit(VOICE, REPLY, MACHINE))


def test_what_was_read_before_is_no_speed_of_the_prompt() -> None:
    again = Reply("", 100, 99, 101, first_token_seconds=0.2, decode_seconds=0.4, kv_bytes=20_100_000)
    assert again.prompt_tokens_per_second == pytest.approx(1 / 0.2)
    assert [phase.name for phase in phases(0, VOICE, again, 130_000_000, MACHINE)] == ["decode"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_picture_has_every_phase_beneath_its_roof_and_says_the_same_in_words(language: str) -> None:
    found = [phase for column in (0, 1) for phase in phases(column, VOICE, REPLY, 130_000_000, MACHINE)]
    assert in_words(found, MACHINE, language).count("<li>") == 4
    roof, *marks = roofline(found, MACHINE, language).data
    assert max(roof.y) == MACHINE.operations
    assert roof.y[0] / roof.x[0] == pytest.approx(MACHINE.bandwidth)
    assert [(mark.x[0], mark.y[0]) for mark in marks] == [(phase.intensity, phase.operations) for phase in found]
    assert {mark.marker.symbol for mark in marks} == {"circle", "circle-open", "square", "square-open"}
    assert in_words([], MACHINE, language).startswith("<p")


def test_a_token_meets_the_head_once_and_of_experts_those_called() -> None:
    def layer(kind: Kind, shape: tuple[int, ...], tied: tuple[str, ...] = ()) -> Layer:
        return Layer("w", ("w",), kind, shape, tied=tied)

    blocks = [layer(Kind.LINEAR, (64, 32)), layer(Kind.LINEAR, (8, 16, 32)), layer(Kind.OTHER, (64,))]
    assert step_weights([*blocks, layer(Kind.EMBEDDING, (100, 32))], 2) == 64 * 32 + 2 * 16 * 32
    tied = layer(Kind.EMBEDDING, (100, 32), ("lm_head.weight",))
    assert step_weights([*blocks, tied], None) == 64 * 32 + 8 * 16 * 32 + 100 * 32


@pytest.mark.parametrize("bits", KV_BITS)
@pytest.mark.parametrize(("heads", "dimensions"), [(3, 64), (1, 96), (2, 128)])
def test_the_cache_takes_what_the_compiled_step_lays_out(bits: int, heads: int, dimensions: int) -> None:
    class Shape:
        layers, kv_heads = (None,) * 5, heads

    Shape.head_dim = dimensions  # type: ignore[attr-defined]
    cache: Any = NativeCache(Shape(), 160, bits)  # type: ignore[arg-type]
    cache.length = 160
    assert cache.nbytes == pytest.approx(KeyValues(5, heads, dimensions).nbytes(160, bits), abs=8)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "phi3", "gpt2"])
def test_the_config_says_what_a_cache_holds(architecture: str) -> None:
    from transformers import AutoModelForCausalLM, DynamicCache

    config = tiny_config(architecture, 100)
    model = AutoModelForCausalLM.from_config(config)
    cache = DynamicCache(config=config)
    import torch

    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    model(torch.arange(7)[None], **{name: cache}, use_cache=True)
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    known = key_values(config)
    assert known is not None
    assert known.nbytes(7) == 2 * held
