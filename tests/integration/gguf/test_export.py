"""A GGUF file says what the compressed folder says: gguf-py finds every number in it, and so does the studio's reader.

The numbers are the same in both; the reader keeps them in 16 bits, and that is all that may differ.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from studio.checkpoint.config import load_config
from studio.checkpoint.gguf.model import read_gguf_model
from studio.checkpoint.json_file import read_json
from studio.export.compressed_model import opened
from studio.export.gguf.families import FAMILIES, family_of, rope_tensors
from studio.export.gguf.tensors import named_tensors, permuted
from studio.export.targets import TARGETS, export
from studio.planning.choice import Choice
from studio.quantization.scheme import Mode
from studio.session.session import Session
from tests.gguf_models import converted
from tests.integration.gguf.models import CASES, MIXED, OURS, computed, numbers, packed, save
from tests.steps import finish

CLOSE = 2e-3
"""Relative error of centred logits with weights in 16 bits; rows in another order, a norm or a bias lost, give 0.1."""
every_case = pytest.mark.parametrize("case", CASES)
CHOICES = {"mixed": MIXED, "ours": OURS}
NEEDED = (
    "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length",
    "rope.freq_base", "rope.dimension_count", "vocab_size",
)  # fmt: skip
"""What llama.cpp's loaders ask of an architecture, or take a default for that is not the model's."""
GENERAL = (
    "general.architecture", "general.name", "general.type", "general.file_type", "general.quantization_version",
    "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.bos_token_id", "tokenizer.chat_template",
)  # fmt: skip

Made = tuple[Path, Path, Path]
"""The source, the compressed folder, and the file."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    @cache
    def make(case: str, choice: str = "mixed") -> Made:
        place = tmp_path_factory.mktemp(f"{case}-{choice}")
        source = save(case, place / "source")
        folder = packed(source, place / "packed", CHOICES[choice])
        return source, folder, finish(export(TARGETS["gguf"], folder, place / "model.gguf"))

    return make


def test_every_family_has_a_case() -> None:
    assert {family for family, _ in CASES.values()} == set(FAMILIES)


@every_case
def test_the_studio_reads_from_the_file_what_the_folder_computes(case: str, made: Callable[..., Made]) -> None:
    source, folder, file = made(case)
    expected = computed(source, numbers(folder))
    found = computed(converted(file).path)
    assert float((found - expected).norm() / expected.norm()) < CLOSE
    assert float((expected - computed(source)).norm() / expected.norm()) > CLOSE  # it was rounded


@pytest.mark.parametrize("case", ["llama", "phi3", "gemma3_text"])
def test_formats_of_ours_become_llama_cpp_s_without_loss(case: str, made: Callable[..., Made]) -> None:
    source, folder, file = made(case, "ours")
    expected = computed(source, numbers(folder))
    found = computed(converted(file).path)
    assert float((found - expected).norm() / expected.norm()) < CLOSE
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert {"Q4_0", "Q5_0", "BF16", "F32"} == kinds


@pytest.mark.parametrize("choice", CHOICES)
@every_case
def test_every_number_is_there_exactly(case: str, choice: str, made: Callable[..., Made]) -> None:
    if choice == "ours" and case not in ("llama", "phi3", "gemma3_text"):
        pytest.skip("three families are enough for it")
    source, folder, file = made(case, choice)
    config = load_config(read_json(source / "config.json"))
    family = family_of(config)
    expected = numbers(folder)
    names = named_tensors([a.layer for a in opened(folder).plan.assignments], family, config)
    held = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    assert set(held) == {each.name for each in names} | set(rope_tensors(config))
    for each in names:
        tensor = held[each.name]
        value = permuted(expected[each.layer.name], each.rows_of_a_head)
        if each.name.endswith("norm.weight"):
            value = value + family.norm_plus
        theirs = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        assert torch.equal(theirs.reshape(value.shape), value), each.name


@every_case
def test_gguf_py_finds_what_llama_cpp_needs(case: str, made: Callable[..., Made]) -> None:
    source, _, file = made(case)
    config = load_config(read_json(source / "config.json"))
    fields = gguf.GGUFReader(file).fields
    arch = fields["general.architecture"].contents()
    assert arch == family_of(config).name
    assert {*GENERAL, *(f"{arch}.{key}" for key in NEEDED)} <= fields.keys()

    def number(key: str) -> Any:
        return fields[f"{arch}.{key}"].contents()

    assert number("block_count") == config.num_hidden_layers
    assert number("embedding_length") == config.hidden_size
    assert number("attention.head_count_kv") == config.num_key_value_heads
    assert number("attention.layer_norm_rms_epsilon") == pytest.approx(config.rms_norm_eps)
    assert number("vocab_size") == len(fields["tokenizer.ggml.tokens"].contents()) == config.vocab_size


OWN: dict[str, dict[str, object]] = {
    "llama-linear": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
    "llama-yarn": {
        "llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 128,
    },
    "mistral-window": {"llama.context_length": 128},
    "phi3-longrope": {"phi3.rope.scaling.original_context_length": 512},
    "gemma2": {
        "gemma2.attention.sliding_window": 24, "gemma2.attn_logit_softcapping": 50.0,
        "gemma2.final_logit_softcapping": 30.0,
    },
    "gemma3_text": {"gemma3.attention.sliding_window": 24, "gemma3.rope.freq_base_swa": 10000.0},
}  # fmt: skip


@pytest.mark.parametrize("case", OWN)
def test_what_only_one_family_says_is_said(case: str, made: Callable[..., Made]) -> None:
    _, _, file = made(case)
    fields = gguf.GGUFReader(file).fields
    assert {key: fields[key].contents() for key in OWN[case]} == OWN[case]


def test_tied_heads_are_written_once(made: Callable[..., Made]) -> None:
    for case, is_there in (("llama", True), ("llama-tied", False), ("gemma2", False)):
        names = {tensor.name for tensor in gguf.GGUFReader(made(case)[2]).tensors}
        assert ("output.weight" in names) == is_there, case


def test_llama3_s_factors_are_those_by_which_transformers_turns(made: Callable[..., Made]) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    source, _, file = made("llama-llama3")
    config = load_config(read_json(source / "config.json"))
    [factors] = [tensor for tensor in gguf.GGUFReader(file).tensors if tensor.name == "rope_freqs.weight"]
    turned, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1e4 ** -(np.arange(0, 32, 2) / 32)
    assert np.allclose(plain / factors.data, turned.numpy(), rtol=1e-6)


def test_the_size_told_before_is_that_of_the_tensors(made: Callable[..., Made]) -> None:
    for case in CASES:
        _, folder, file = made(case)
        reader = gguf.GGUFReader(file)
        beside = sum(tensor.n_bytes for tensor in reader.tensors if tensor.name.startswith("rope_"))
        written = file.stat().st_size - reader.data_offset
        assert abs(written - TARGETS["gguf"].size(opened(folder).plan) - beside) <= 2 * reader.alignment, case


def test_a_session_opens_the_file(made: Callable[..., Made], own_cache: Path, tmp_path: Path) -> None:
    source, folder, file = made("qwen3")
    session = Session(paths=True, workspace=tmp_path / "workspace")
    try:
        finish(session.open(str(file)))
        assert session.checkpoint is not None
        assert session.checkpoint.architecture == "qwen3"
        expected = computed(source, numbers(folder))
        found = computed(session.checkpoint.path)
        assert float((found - expected).norm() / expected.norm()) < CLOSE
    finally:
        session.close()


def test_the_file_is_read_by_name_and_says_nothing_of_where_it_was_made(made: Callable[..., Made]) -> None:
    _, folder, file = made("llama")
    assert read_gguf_model(file, keep=()).architecture == "llama"
    assert str(folder.parent).encode() not in file.read_bytes()


def test_the_choice_of_the_default_method_makes_the_same_file_again(made: Callable[..., Made], tmp_path: Path) -> None:
    _, folder, file = made("llama")
    again = finish(export(TARGETS["gguf"], folder, tmp_path / "again.gguf"))
    assert again.read_bytes() == file.read_bytes()


def test_a_width_that_blocks_do_not_divide_takes_what_llama_cpp_takes(tmp_path: Path) -> None:
    """64 channels: Q4_K becomes Q5_0 and Q6_K, which is the backup here, Q8_0."""
    from tests.conftest import save_tiny_model

    save_tiny_model("llama", tmp_path / "source", initializer_range=0.1)
    folder = packed(tmp_path / "source", tmp_path / "packed", Choice(Mode.Q4_K, 32, backup=Mode.Q6_K))
    file = finish(export(TARGETS["gguf"], folder, tmp_path / "model.gguf"))
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors if len(tensor.shape) > 1}
    assert kinds == {"Q5_0", "Q8_0"}
    expected = computed(tmp_path / "source", numbers(folder))
    found = computed(converted(file).path)
    assert float((found - expected).norm() / expected.norm()) < CLOSE
