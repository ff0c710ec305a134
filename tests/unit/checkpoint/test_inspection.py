"""A config and headers say what kind of model it is; where the files are here, tied tensors are compared, too."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.base.errors import CheckpointError, ModelError
from studio.checkpoint.headers import TensorEntry, read_header
from studio.checkpoint.inspection import COMPARED_BYTES, inspect
from studio.checkpoint.json_file import read_json
from studio.checkpoint.layers import Kind

TinyModel = Callable[[str], Path]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def files(folder: Path) -> tuple[dict[str, Any], dict[str, TensorEntry]]:
    return read_json(folder / "config.json"), read_header(folder / "model.safetensors")


def at_32_bits(entry: TensorEntry) -> TensorEntry:
    return replace(entry, dtype="F32", end=entry.end + entry.nbytes)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "phi3"])
def test_headers_alone_tell_what_the_files_do(tiny_model: TinyModel, architecture: str) -> None:
    config, entries = files(tiny_model(architecture))
    facts = inspect(config, entries, None)
    assert facts == inspect(config, entries, tiny_model(architecture))
    assert (facts.architecture, facts.source_format, facts.can_chat, facts.part) == (architecture, "BF16", True, "")
    assert {name for layer in facts.layers for name in layer.sources} <= entries.keys()
    assert sum(layer.kind is Kind.EMBEDDING for layer in facts.layers) >= 1


def test_the_format_with_most_bytes_is_named_first(tiny_model: TinyModel) -> None:
    config, entries = files(tiny_model("llama"))
    few = {name: at_32_bits(entry) if "norm" in name else entry for name, entry in entries.items()}
    many = {name: entry if "norm" in name else at_32_bits(entry) for name, entry in entries.items()}
    assert inspect(config, few, None).source_format == "BF16/F32"
    assert inspect(config, many, None).source_format == "F32/BF16"


def test_what_writes_no_text_cannot_chat(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        architectures=["BertModel"],
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    facts = inspect(*files(tmp_path), tmp_path)
    assert facts.architecture == "bert"
    assert not facts.can_chat


def tied(folder: Path, source: Path, change: Callable[[Tensor], Tensor]) -> Mapping[str, Kind]:
    """Return the embedding and the head of a model that ties them, and whose file has both."""
    folder.mkdir()
    tensors = load_file(source / "model.safetensors")
    # As large as what is compared at each end, twice, so that there is something between.
    rows = 3 * COMPARED_BYTES // (2 * 64)
    wide = torch.randn(rows, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    tensors |= {EMBEDDING: wide, HEAD: change(wide.clone())}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = read_json(source / "config.json") | {"tie_word_embeddings": True, "vocab_size": rows}
    layers = inspect(config, read_header(folder / "model.safetensors"), folder).layers
    return {layer.name: layer.kind for layer in layers if layer.name in (EMBEDDING, HEAD)}


def changed_at(row: int) -> Callable[[Tensor], Tensor]:
    def change(weight: Tensor) -> Tensor:
        weight[row] += 1
        return weight

    return change


@pytest.mark.parametrize(
    "change",
    [changed_at(0), changed_at(-1), lambda weight: weight.half()],
    ids=["first row", "last row", "dtype"],
)
def test_a_head_that_was_trained_apart_is_a_weight_of_its_own(
    tiny_model: TinyModel, tmp_path: Path, change: Callable[[Tensor], Tensor]
) -> None:
    found = tied(tmp_path / "model", tiny_model("llama"), change)
    assert found == {EMBEDDING: Kind.EMBEDDING, HEAD: Kind.HEAD}


def test_a_head_that_is_the_embedding_is_one_with_it(tiny_model: TinyModel, tmp_path: Path) -> None:
    assert tied(tmp_path / "model", tiny_model("llama"), lambda weight: weight) == {EMBEDDING: Kind.EMBEDDING}


def test_what_is_none_of_ours_is_a_sentence(tiny_model: TinyModel) -> None:
    config, entries = files(tiny_model("llama"))
    with pytest.raises(ModelError, match="unheard_of"):
        inspect({"model_type": "unheard_of"}, entries, None)
    with pytest.raises(CheckpointError) as raised:
        inspect(config, {name: entry for name, entry in entries.items() if name != EMBEDDING}, None)
    assert raised.value.key == "tensor_missing"
    with pytest.raises(CheckpointError) as raised:
        inspect(config | {"intermediate_size": 96}, entries, None)
    assert raised.value.key == "tensor_mismatch"
