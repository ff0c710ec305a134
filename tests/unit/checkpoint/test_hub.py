"""What the Hub's module decides without a network."""

import pytest

from studio.checkpoint import hub, hub_client
from studio.checkpoint.file_names import CONFIG, INDEX


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B", "a/b", "owner_1/model.v2-it"])
def test_a_name_the_hub_could_know(name: str) -> None:
    assert hub_client.is_repo_id(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../gpt2",
        "/etc/passwd",
        "a/b/c",
        "a/../b",
        "a\\b",
        "C:\\m",
        "a b",
        "文/件",
        "-a/b",
        "a/b.git",
        "a--b",
    ],
)
def test_a_name_it_could_not(name: str) -> None:
    assert not hub_client.is_repo_id(name)


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "vocab.json",
        "merges.txt",
        INDEX,
        CONFIG,
    ],
)
def test_a_file_worth_fetching(name: str) -> None:
    assert hub.is_wanted(name)


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.py",
        "vocab.bin",
        "tokenizer.pkl",
        "pytorch_model.bin",
        "modeling_llama.py",
        "adapter_config.json",
        "adapter_model.safetensors",
        "model.fp16.safetensors",
        "tokenizer.safetensors",
        "original/tokenizer.model",
        "README.md",
    ],
)
def test_a_file_never_fetched(name: str) -> None:
    assert not hub.is_wanted(name)
