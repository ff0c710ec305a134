"""What a GGUF file says of tokens, for every kind of tokenizer that llama.cpp knows; the others are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from studio.base.errors import CheckpointError, ModelError
from studio.export.gguf.splits import GPT2_SPLIT, LLAMA3_SPLIT, QWEN2_SPLIT
from studio.export.gguf.vocabulary import TOKENIZER, Vocabulary, read_vocabulary
from tests.conftest import SENTENCES, tiny_tokenizer

Kind = gguf.TokenType
SIZE = 330


def config(size: int = SIZE, **more: Any) -> Any:
    return SimpleNamespace(**{"vocab_size": size, "eos_token_id": None, "model_type": "llama", **more})


def byte_level(pre: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=310, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def sentencepiece(prepend: bool = True) -> Tokenizer:
    """Return what Llama 2 and Gemma have: merges over words that begin with U+2581, bytes for what is unknown."""
    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps: list[Any] = [normalizers.Prepend("\u2581")] if prepend else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=120, special_tokens=[*special, *(f"<0x{each:02X}>" for each in range(16))], show_progress=False
        ),
    )
    content = json.loads(tokenizer.to_str())
    bytes_ = {f"<0x{each:02X}>" for each in range(16)}
    content["added_tokens"] = [each for each in content["added_tokens"] if each["content"] not in bytes_]
    return Tokenizer.from_str(json.dumps(content))


def saved(folder: Path, tokenizer: Tokenizer, **settings: Any) -> Path:
    (folder / TOKENIZER).write_text(tokenizer.to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>", **settings}))
    return folder


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads((folder / TOKENIZER).read_text())
    change(content)
    (folder / TOKENIZER).write_text(json.dumps(content))
    return folder


def written(vocabulary: Vocabulary, folder: Path) -> dict[str, Any]:
    """Return the metadata as gguf-py reads them from a file."""
    writer = gguf.GGUFWriter(folder / "v.gguf", "llama")
    vocabulary.write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return {name: field.contents() for name, field in gguf.GGUFReader(folder / "v.gguf").fields.items()}


# byte-level BPE


def split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


SPLITS: dict[str, Any] = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama-bpe": split(LLAMA3_SPLIT),
    "qwen2": split(QWEN2_SPLIT),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_way_of_splitting_has_llama_cpp_s_name(name: str, tmp_path: Path) -> None:
    tokenizer = byte_level(SPLITS[name])
    tokenizer.model.ignore_merges = name == "llama-bpe"
    found = read_vocabulary(saved(tmp_path, tokenizer), config())
    assert (found.model, found.pre, found.scores) == ("gpt2", name, None)
    count = tokenizer.get_vocab_size()
    assert found.tokens[:count] == [tokenizer.id_to_token(index) for index in range(count)]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    assert found.merges == [" ".join(pair) for pair in merges]


def test_gpt_2_s_split_spelled_out_is_gpt_2_s(tmp_path: Path) -> None:
    assert read_vocabulary(saved(tmp_path, byte_level(split(GPT2_SPLIT))), config()).pre == "gpt-2"


UNKNOWN: dict[str, Any] = {
    "another regex": split(r"\p{L}+|\p{N}{1,2}"),
    "digits in runs": pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(False)]),
    "a space before": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "at whitespace": pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)]),
    "no regex at all": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    "nothing": pre_tokenizers.Sequence([]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_way_that_llama_cpp_has_no_name_for_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_vocabulary(saved(tmp_path, byte_level(UNKNOWN[name])), config())
    assert caught.value.key == "to_gguf_pre_tokenizer"


@pytest.mark.parametrize("behaviour", ["removed", "merged_with_previous"])
def test_so_is_a_known_pattern_used_otherwise(behaviour: str, tmp_path: Path) -> None:
    parts = [
        pre_tokenizers.Split(Regex(QWEN2_SPLIT), behaviour),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    with pytest.raises(ModelError) as caught:
        read_vocabulary(saved(tmp_path, byte_level(pre_tokenizers.Sequence(parts))), config())
    assert caught.value.key == "to_gguf_pre_tokenizer"


def test_so_is_a_normalizer_that_changes_words(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelError) as caught:
        read_vocabulary(saved(tmp_path, tokenizer), config())
    assert caught.value.key == "to_gguf_pre_tokenizer"


@pytest.mark.parametrize(
    "model",
    [
        models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"),
        models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0),
        models.WordLevel({"a": 0}, unk_token="a"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_other_kinds_are_refused_by_name(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_vocabulary(saved(tmp_path, Tokenizer(model)), config())
    assert (caught.value.key, caught.value.values["kind"]) == ("to_gguf_tokenizer", type(model).__name__)


# kinds of tokens


def test_what_is_special_controls_and_what_was_added_is_a_word(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.add_tokens(["<think>"])
    found = read_vocabulary(saved(tmp_path, tokenizer), config())
    kinds = {token: Kind(kind) for token, kind in zip(found.tokens, found.types, strict=True)}
    assert (kinds["<s>"], kinds["<|im_end|>"], kinds["<think>"]) == (Kind.CONTROL, Kind.CONTROL, Kind.USER_DEFINED)
    assert kinds["a"] is Kind.NORMAL
    assert found.ids["eot"] == found.tokens.index("<|im_end|>")
    assert (found.ids["bos"], found.ids["eos"]) == (0, 1)


def test_rows_of_the_embedding_without_a_token_are_filled_up(tmp_path: Path) -> None:
    tokenizer = byte_level()
    count = tokenizer.get_vocab_size()
    found = read_vocabulary(saved(tmp_path, tokenizer), config())
    assert len(found.tokens) == len(found.types) == len(set(found.tokens)) == SIZE
    assert found.tokens[count:] == [f"[PAD{index}]" for index in range(count, SIZE)]
    assert set(found.types[count:]) == {int(Kind.UNUSED)}


def test_no_text_stands_for_two_tokens(tmp_path: Path) -> None:
    """llama.cpp ends its process over a vocabulary that has one twice."""
    tokenizer = byte_level()
    tokenizer.add_tokens([f"[PAD{SIZE - 1}]"])
    found = read_vocabulary(saved(tmp_path, tokenizer), config())
    assert len(set(found.tokens)) == SIZE


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_vocabulary(saved(tmp_path, byte_level()), config(300))
    assert caught.value.key == "to_gguf_tokens"


def test_what_ends_an_answer_is_the_config_s_where_the_tokenizer_is_silent(tmp_path: Path) -> None:
    folder = saved(tmp_path, byte_level(), eos_token=None)
    assert read_vocabulary(folder, config(eos_token_id=2)).ids["eos"] == 2


def test_whether_a_text_is_begun_by_a_token_is_said(tmp_path: Path) -> None:
    folder = saved(tmp_path, byte_level())
    assert not read_vocabulary(folder, config()).adds_bos
    step = {
        "type": "TemplateProcessing", "pair": [], "special_tokens": {},
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    }  # fmt: skip
    changed(folder, lambda file: file.update(post_processor=step))
    assert read_vocabulary(folder, config()).adds_bos
    assert not read_vocabulary(saved_settings(folder, add_bos_token=False), config()).adds_bos


def saved_settings(folder: Path, **settings: Any) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>", **settings}))
    return folder


# SentencePiece


def test_merges_come_back_from_the_scores_in_their_order(tmp_path: Path) -> None:
    tokenizer = sentencepiece()
    found = read_vocabulary(saved(tmp_path, tokenizer, unk_token="<unk>"), config())
    assert (found.model, found.pre, found.adds_space) == ("llama", "default", True)
    assert found.scores is not None
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    first = list(dict.fromkeys("".join(pair) for pair in merges))
    scores = dict(zip(found.tokens, found.scores, strict=True))
    assert sorted(first, key=lambda token: -scores[token]) == first
    assert min(scores[token] for token in first) > min(found.scores)  # single characters are merged from nothing
    kinds = {token: Kind(kind) for token, kind in zip(found.tokens, found.types, strict=True)}
    assert (kinds["<unk>"], kinds["<0x0A>"], kinds["<s>"]) == (Kind.UNKNOWN, Kind.BYTE, Kind.CONTROL)
    assert found.ids["unk"] == found.tokens.index("<unk>")


def test_gemma_s_puts_no_space_before_a_text(tmp_path: Path) -> None:
    assert not read_vocabulary(saved(tmp_path, sentencepiece(prepend=False)), config()).adds_space


def test_added_words_have_spaces_as_they_are_typed(tmp_path: Path) -> None:
    tokenizer = sentencepiece()
    tokenizer.add_tokens(["\u2581\u2581\u2581"])
    found = read_vocabulary(saved(tmp_path, tokenizer), config())
    assert found.types[found.tokens.index("   ")] == Kind.USER_DEFINED


# the file


def test_gguf_py_reads_what_was_written(tmp_path: Path) -> None:
    for tokenizer in (byte_level(), sentencepiece()):
        found = read_vocabulary(saved(tmp_path, tokenizer, chat_template="{{ x }}"), config())
        fields = written(found, tmp_path)
        assert fields["tokenizer.ggml.tokens"] == found.tokens
        assert fields["tokenizer.ggml.token_type"] == found.types
        assert fields.get("tokenizer.ggml.scores") == found.scores
        assert fields["tokenizer.chat_template"] == "{{ x }}"
        assert (fields.get("tokenizer.ggml.merges") or []) == (found.merges if found.model == "gpt2" else [])


def test_a_template_of_its_own_file_goes_before_the_settings(tmp_path: Path) -> None:
    folder = saved(tmp_path, byte_level(), chat_template="old")
    assert read_vocabulary(folder, config()).template == "old"
    (folder / "chat_template.jinja").write_text("new")
    assert read_vocabulary(folder, config()).template == "new"


def test_of_several_templates_the_default_one_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    assert read_vocabulary(saved(tmp_path, byte_level(), chat_template=named), config()).template == "plain"


def test_the_tiny_tokenizer_of_the_tests_is_gpt_2_s(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    found = read_vocabulary(tmp_path, config(eos_token_id=1))
    assert (found.pre, found.ids["bos"], found.ids["eos"], found.ids["pad"]) == ("gpt-2", 0, 1, 2)


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no model": lambda file: file.pop("model"),
    "a model that is a word": lambda file: file.update(model="BPE"),
    "no vocabulary": lambda file: file["model"].pop("vocab"),
    "a vocabulary that is a list": lambda file: file["model"].update(vocab=[["a", 0]]),
    "an index that is a word": lambda file: file["model"]["vocab"].update(a="0"),
    "an index that is none": lambda file: file["model"]["vocab"].update(a=None),
    "an index below zero": lambda file: file["model"]["vocab"].update(a=-1),
    "merges of one": lambda file: file["model"].update(merges=[["a"]]),
    "merges of numbers": lambda file: file["model"].update(merges=[1, 2]),
    "an added token without a text": lambda file: file["added_tokens"][0].pop("content"),
    "an added token that is a number": lambda file: file.update(added_tokens=[3]),
    "half a character": lambda file: file["added_tokens"][0].update(content="\ud800"),
    "a step that is a word": lambda file: file.update(pre_tokenizer="ByteLevel"),
    "steps that are numbers": lambda file: file.update(pre_tokenizer={"pretokenizers": [1]}),
    "a normalizer that is a list": lambda file: file.update(normalizer=[1]),
    "a post-processor that is a number": lambda file: file.update(post_processor=3),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_sentence(damage: str, tmp_path: Path) -> None:
    folder = changed(saved(tmp_path, byte_level()), DAMAGES[damage])
    with pytest.raises((CheckpointError, ModelError)):
        read_vocabulary(folder, config())


@pytest.mark.parametrize("name", [TOKENIZER, "tokenizer_config.json"])
def test_a_file_that_is_no_json_is_a_sentence(name: str, tmp_path: Path) -> None:
    (saved(tmp_path, byte_level()) / name).write_text("{")
    with pytest.raises(CheckpointError):
        read_vocabulary(tmp_path, config())


def test_without_a_tokenizer_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_vocabulary(tmp_path, config())
    assert caught.value.key == "missing_file"


@pytest.mark.parametrize("template", ["\ud800", ["x"], {"a": 1}, 7])
def test_a_template_that_is_no_text_is_left_out_or_refused(template: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path, byte_level(), chat_template=template)
    try:
        found = read_vocabulary(folder, config())
    except (CheckpointError, ModelError):
        return
    assert found.template is None


# what ends an answer


def ends(folder: Path, ids: list[int]) -> dict[str, int]:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    found = read_vocabulary(saved(folder, byte_level()), config())
    return {name: found.ids[name] for name in ("eos", "eot", "eom") if name in found.ids}


def test_tokens_that_llama_cpp_does_not_know_as_ends_are_given_a_place_each(tmp_path: Path) -> None:
    assert ends(tmp_path, [1]) == {"eos": 1}
    assert ends(tmp_path, [7]) == {"eos": 1, "eot": 7}  # the tokenizer's own ends one too
    assert ends(tmp_path, [9, 1, 7]) == {"eos": 1, "eot": 7, "eom": 9}


def test_more_of_them_than_there_are_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        ends(tmp_path, [1, 7, 8, 9])
    assert (caught.value.key, caught.value.values["count"]) == ("to_gguf_ends", 4)


def test_those_whose_texts_it_knows_need_none(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<|im_end|>", "<|endoftext|>", "<|eot_id|>"])
    known = [tokenizer.token_to_id(each) for each in ("<|im_end|>", "<|endoftext|>", "<|eot_id|>")]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [*known, 8, 9]}))
    found = read_vocabulary(saved(tmp_path, tokenizer), config())
    assert (found.ids["eos"], {found.ids["eot"], found.ids["eom"]}) == (1, {8, 9})


def test_two_texts_that_are_one_up_to_a_zero_are_refused(tmp_path: Path) -> None:
    """llama.cpp reads a text to its first zero, and ends where two tokens have the same."""
    tokenizer = byte_level()
    tokenizer.add_tokens(["one\0two", "one\0three"])
    with pytest.raises(CheckpointError) as caught:
        read_vocabulary(saved(tmp_path, tokenizer), config())
    assert caught.value.key == "damaged_file"
