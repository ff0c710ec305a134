"""The compiled decoder's logits are transformers' own, in fp32, on the same weights: every family, every scheme, every
way to cut a text into steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

from studio.base.errors import CheckpointError
from studio.checkpoint.file_names import PACKED
from studio.checkpoint.open_model import open_model
from studio.compression.compress import compress
from studio.export import write_folder
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.decoder import Backend, GeneralDecoder, open_compressed, open_original
from studio.runtime.decoder.cpu import NativeDecoder, is_available
from studio.runtime.native import tiling
from tests.conftest import tiny_tokenizer
from tests.steps import finish

pytestmark = pytest.mark.skipif(not is_available(), reason="needs a C compiler")

V = 320
SHAPE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "head_dim": 32, "vocab_size": V, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
MODES = tuple(mode.value for mode in Mode if tiling.takes(Scheme.of(mode, 32)))
SHAPE_BY_DEFAULT = {name: value for name, value in SHAPE.items() if name != "head_dim"}
SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tf.LlamaConfig(**SHAPE),
    "llama-tied-biases": lambda: tf.LlamaConfig(**SHAPE, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    "llama-stretched": lambda: tf.LlamaConfig(**SHAPE, rope_parameters=LLAMA3),
    "llama-odd": lambda: tf.LlamaConfig(**{**SHAPE, "hidden_size": 80, "intermediate_size": 136, "head_dim": 16}),
    "llama-wide": lambda: tf.LlamaConfig(**{**SHAPE, "hidden_size": 256, "intermediate_size": 512, "head_dim": 64}),
    "mistral-window": lambda: tf.MistralConfig(**SHAPE, sliding_window=20),
    "qwen2": lambda: tf.Qwen2Config(**SHAPE_BY_DEFAULT),
    "qwen3": lambda: tf.Qwen3Config(**SHAPE),
    "smollm3": lambda: tf.SmolLM3Config(**SHAPE_BY_DEFAULT, no_rope_layers=[1, 0, 1]),
    "phi3": lambda: tf.Phi3Config(**SHAPE_BY_DEFAULT, partial_rotary_factor=0.5),
    "gemma": lambda: tf.GemmaConfig(**SHAPE),
    "gemma2": lambda: tf.Gemma2Config(**SHAPE, sliding_window=20, layer_types=SLIDING, query_pre_attn_scalar=24),
    "gemma3": lambda: tf.Gemma3TextConfig(**SHAPE, sliding_window=20, layer_types=SLIDING),
}
of_every_family = pytest.mark.parametrize("family", CONFIGS)
BOUND = 3e-3
"""Relative distance of logits. Keys and values are rounded to fp16, by 2^-11 of each at most; each of the three blocks'
outputs then errs by 2 * 2^-11 of its size at most, all of them together by 3e-3. The rest is fp32."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp("source") / family
            torch.manual_seed(0)
            model = tf.AutoModelForCausalLM.from_config(CONFIGS[family](), dtype=torch.bfloat16)
            for name, parameter in model.named_parameters():
                if "norm" in name:  # all ones or zeros, when they are made
                    parameter.data += 0.3 * torch.randn(parameter.shape)
                if name.endswith("bias"):
                    parameter.data += 0.1 * torch.randn(parameter.shape)
            model.save_pretrained(folder)
            tiny_tokenizer().save_pretrained(folder)
            made[family] = folder
        return made[family]

    return make


def ids(count: int = 60) -> list[int]:
    found: list[int] = torch.randint(3, V, (count,), generator=torch.Generator().manual_seed(1)).tolist()
    return found


def reference(folder: Path) -> Any:
    return tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


@torch.inference_mode()
def logits(model: Any, tokens: list[int]) -> Tensor:
    found: Tensor = model(torch.tensor([tokens])).logits[0]
    return found.double()


def distance(found: Tensor, expected: Tensor) -> float:
    return float(((found.double() - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


def opened(folder: Path) -> Any:
    return finish(open_model(str(folder), True))


@of_every_family
def test_the_original(source: Callable[[str], Path], family: str) -> None:
    folder = source(family)
    decoder = open_original(opened(folder))
    assert decoder.backend is Backend.NATIVE
    found = decoder.forward_all(decoder.begin(64), ids())
    assert distance(found, logits(reference(folder), ids())) < BOUND


@of_every_family
def test_it_does_not_matter_how_a_text_is_cut(source: Callable[[str], Path], family: str) -> None:
    decoder = open_original(opened(source(family)))
    whole = decoder.forward_all(decoder.begin(64), ids())
    cache = decoder.begin(64)
    pieces = [decoder.step(cache, ids()[:17])]
    pieces += [decoder.step(cache, [token]) for token in ids()[17:30]]
    pieces.append(decoder.step(cache, ids()[30:]))
    ends = [16, *range(17, 30), 59]
    assert torch.equal(torch.stack(pieces), whole[ends])


def compressed(folder: Path, choice: Choice, to: Path) -> Path:
    checkpoint = opened(folder)
    made = finish(compress(checkpoint, make_plan(checkpoint.layers, choice), to / "packed.safetensors"))
    return write_folder(checkpoint, made, to / "exported")


@torch.no_grad()
def dequantized(folder: Path, exported: Path) -> Any:
    """Return transformers' model with what the packed weights stand for."""
    from safetensors import safe_open

    from studio.checkpoint.recipe import read_recipe
    from studio.runtime.model import packed_weight

    model = reference(folder)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with safe_open(exported / PACKED, framework="pt") as file:
        for weight in read_recipe(exported).weights:
            for name in (weight.name, *weight.tied):
                parameters[name].copy_(packed_weight(file, weight).dequantize())
    return model


@of_every_family
def test_the_compressed_model(source: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    exported = compressed(source(family), Choice.of("int4_asym", -1, 1, "int8_asym"), tmp_path)
    decoder = open_compressed(exported)
    assert decoder.backend is Backend.NATIVE
    found = decoder.forward_all(decoder.begin(64), ids())
    assert distance(found, logits(dequantized(source(family), exported), ids())) < BOUND


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(source: Callable[[str], Path], mode: str, tmp_path: Path) -> None:
    """Embedding and head too."""
    from dataclasses import replace

    family = "llama" if Scheme.of(Mode(mode), 32).fits(SHAPE["hidden_size"]) else "llama-wide"
    choice = replace(Choice.of(mode, 32, 1, "none"), all_layers=not mode.startswith("int8"))
    exported = compressed(source(family), choice, tmp_path)
    decoder = open_compressed(exported)
    assert decoder.backend is Backend.NATIVE
    found = decoder.forward_all(decoder.begin(64), ids())
    assert distance(found, logits(dequantized(source(family), exported), ids())) < BOUND


@pytest.mark.parametrize(("bits", "allowed"), [(8, 0.02), (4, 0.2)])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_smaller_cache_is_near(source: Callable[[str], Path], family: str, bits: int, allowed: float) -> None:
    """8 bits err by half a 255th of a group's range, 4 bits by half a 15th: an eighth more than noise would explain."""
    decoder = open_original(opened(source(family)))
    whole, cache = decoder.forward_all(decoder.begin(64), ids()), decoder.begin(64, bits)
    found = decoder.forward_all(cache, ids())
    assert 0 < distance(found, whole.double()) < allowed
    sizes = [decoder.begin(64, each) for each in (16, bits)]
    for each in sizes:
        decoder.step(each, ids()[:48])
    assert sizes[1].nbytes < sizes[0].nbytes * (bits / 16 + 0.2)


def test_heads_that_do_not_fill_a_group_have_no_4_bit_cache(source: Callable[[str], Path]) -> None:
    decoder = open_original(opened(source("llama-odd")))
    assert decoder.kv_bits == (16, 8)
    whole = decoder.forward_all(decoder.begin(64), ids()).double()
    assert 0 < distance(decoder.forward_all(decoder.begin(64, 8), ids()), whole) < 0.02


def test_a_cache_rewinds(source: Callable[[str], Path]) -> None:
    decoder = open_original(opened(source("qwen3")))
    cache = decoder.begin(64)
    first = decoder.step(cache, ids()[:20])
    decoder.step(cache, ids()[20:40])
    cache.rewind(19)
    assert cache.length == 19
    assert torch.equal(decoder.step(cache, ids()[19:20]), first)


def test_hidden_states_give_the_logits(source: Callable[[str], Path]) -> None:
    decoder = open_original(opened(source("llama")))
    assert isinstance(decoder, NativeDecoder)
    states = decoder.states(decoder.begin(64), ids())
    head = dict(reference(source("llama")).named_parameters())["lm_head.weight"].detach()
    assert torch.allclose(states @ head.T, decoder.forward_all(decoder.begin(64), ids()), atol=1e-5)


def test_what_does_not_fit_is_refused(source: Callable[[str], Path]) -> None:
    decoder = open_original(opened(source("llama")))
    cache = decoder.begin(16)
    for tokens in (ids()[:17], [], [V], [-1]):
        with pytest.raises(ValueError, match="do not fit"):
            decoder.step(cache, tokens)
    assert cache.length == 0


def test_without_a_compiler_it_goes_the_general_way(source: Callable[[str], Path], tmp_path: Path) -> None:
    exported = compressed(source("llama"), Choice.of("int4_asym", 32, 1, "int8_asym"), tmp_path)
    fast = open_compressed(exported)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studio.runtime.decoder.open_decoder.is_available", lambda: False)
        patch.setattr("studio.runtime.kernels.compiled.decoding", lambda: None)
        slow = open_compressed(exported)
        original = open_original(opened(source("llama")))
    assert isinstance(slow, GeneralDecoder)
    assert isinstance(original, GeneralDecoder)
    expected = fast.forward_all(fast.begin(64), ids()).double()
    assert distance(slow.forward_all(slow.begin(64), ids()), expected) < 0.1


@pytest.mark.parametrize(
    ("error", "reason"),
    [(torch.OutOfMemoryError("full"), "gpu_memory"), (RuntimeError("does not compile"), "gpu_kernels")],
)
def test_a_gpu_that_fails_leaves_it_to_the_processor(
    source: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    exported = compressed(source("llama"), Choice.of("int4_asym", 32, 1, "int8_asym"), tmp_path)
    monkeypatch.setattr("studio.runtime.decoder.open_decoder.device", lambda: torch.device("cuda"))
    monkeypatch.setattr("studio.runtime.decoder.open_decoder.nvrtc.is_available", lambda: True)
    monkeypatch.setattr("studio.runtime.decoder.open_decoder.cuda_step.takes", lambda _: True)
    monkeypatch.setattr("studio.runtime.decoder.open_decoder.CudaDecoder", fails)
    for decoder in (open_compressed(exported), open_original(opened(source("llama")))):
        assert (decoder.backend, decoder.reason) == (Backend.NATIVE, reason)
    monkeypatch.setattr("studio.runtime.decoder.open_decoder.cuda_step.takes", lambda _: False)
    assert open_compressed(exported).reason == "gpu_shape"
    monkeypatch.setattr("studio.runtime.decoder.open_decoder.nvrtc.is_available", lambda: False)
    assert open_compressed(exported).reason == "gpu_kernels"


def test_a_folder_that_is_not_whole_is_refused(source: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    exported = compressed(source("llama"), Choice.of("int4_asym", 32, 1, "int8_asym"), tmp_path)
    tensors = load_file(exported / PACKED)
    norm = "model.layers.1.input_layernorm.weight"
    broken = {
        "missing": {name: tensor for name, tensor in tensors.items() if name != norm},
        "wide": {**tensors, norm: torch.ones(65)},
        "stray": {**tensors, "model.layers.9.input_layernorm.weight": torch.ones(64)},
    }
    for each in broken.values():
        save_file(each, exported / PACKED)
        with pytest.raises(CheckpointError):
            open_compressed(exported)
