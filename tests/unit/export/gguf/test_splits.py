"""The nearest name is offered and never taken; a name that was asked for is, and an unknown one is refused."""

import json
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from studio.base.errors import ModelError, SchemeError
from studio.export.gguf.splits import (
    GPT4O_SPLIT,
    LLAMA3_SPLIT,
    NAMES,
    QWEN2_SPLIT,
    TEKKEN_SPLIT,
    check_sentencepiece,
    nearest,
    split_name,
)

NEAR = {
    "tekken": TEKKEN_SPLIT,
    "gpt-4o": GPT4O_SPLIT,
    "llama-bpe": LLAMA3_SPLIT.replace("{1,3}", "{1,2}"),
    "qwen2": QWEN2_SPLIT.replace(r"\p{N}|", r"[0-9]|"),
    "gpt-2": r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",
}


def file(pattern: str, **model: Any) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE({"a": 0}, []))
    isolated = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([isolated, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made: dict[str, Any] = json.loads(tokenizer.to_str())
    made["model"] |= model
    return made


@pytest.mark.parametrize("name", NEAR)
def test_the_nearest_is_offered_by_name(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        split_name(file(NEAR[name]), None)
    assert (caught.value.key, caught.value.values["nearest"]) == ("to_gguf_pre_tokenizer", name)
    assert f"--pre-tokenizer {name}" in str(caught.value)
    assert split_name(file(NEAR[name]), name) == name


def test_anything_has_a_nearest() -> None:
    assert nearest(()) in NAMES
    assert nearest(("x" * 100_000, "<b>")) in NAMES


@pytest.mark.parametrize("name", ["", "default", "qwen3", "x" * 10_000, "../qwen2", "qwen2\n"])
def test_a_name_that_is_none_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(SchemeError) as caught:
        split_name(file(QWEN2_SPLIT), name)
    assert caught.value.key == "unknown_pre_tokenizer"
    assert all(each in str(caught.value) for each in NAMES)
    assert len(str(caught.value)) < 400


def test_whole_words_are_taken_where_the_tokenizer_takes_them() -> None:
    assert split_name(file(LLAMA3_SPLIT, ignore_merges=True), None) == "llama-bpe"
    assert split_name(file(LLAMA3_SPLIT), None) == "smaug-bpe"
    with pytest.raises(ModelError) as caught:
        split_name(file(QWEN2_SPLIT, ignore_merges=True), None)
    assert caught.value.values["found"] == "ignore_merges"


def pieces(merges: list[list[str]]) -> dict[str, Any]:
    vocab = {token: index for index, token in enumerate(("a", "b", "c", "ab", "bc", "abc"))}
    return {"model": {"vocab": vocab, "merges": merges}}


def test_merges_that_llama_cpp_would_not_find_again_are_refused() -> None:
    every = [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]]
    check_sentencepiece(pieces(every), None)
    with pytest.raises(ModelError) as caught:
        check_sentencepiece(pieces(every[:3]), None)
    assert (caught.value.key, caught.value.values["nearest"]) == ("to_gguf_pre_tokenizer", "default")
    check_sentencepiece(pieces(every[:3]), "default")
    with pytest.raises(SchemeError):
        check_sentencepiece(pieces(every), "qwen2")
