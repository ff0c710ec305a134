"""Strangers' tokenizers: what is wrong with their files is a sentence, and nobody else notices."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from studio.base.errors import CheckpointError
from studio.chat.detokenize import Detokenizer
from studio.chat.prompt import prompt_ids
from studio.checkpoint.tokenizer import guarded_tokenizer as module
from studio.checkpoint.tokenizer.guarded_tokenizer import load_tokenizer
from tests.tokenizer_folders import DOUBLING, HELLO, TEXT, edit, error_of, use

SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def test_it_says_what_transformers_says(sound: Path) -> None:
    tokenizer, theirs = load_tokenizer(sound), AutoTokenizer.from_pretrained(sound)
    for text in (TEXT, "", "Zoë 春天 \N{ROCKET}", "a </s> b"):
        assert tokenizer.encode(text) == theirs(text)["input_ids"]
        assert tokenizer.decode(tokenizer.encode(text)) == theirs.decode(theirs(text)["input_ids"])
    rendered = theirs.apply_chat_template(HELLO, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert prompt_ids(tokenizer, HELLO) == rendered
    assert (len(tokenizer), tokenizer.eos_token_id) == (len(theirs), theirs.eos_token_id)
    assert tokenizer.special_ids == set(theirs.all_special_ids)


def test_an_answer_grows_by_whole_characters(sound: Path) -> None:
    tokenizer = load_tokenizer(sound)
    written, seen = Detokenizer(tokenizer), []
    for token in tokenizer.encode("Zoë 春天"):
        seen.append(written(token))
    assert seen[-1] == "Zoë 春天"
    assert all("Zoë 春天".startswith(text) for text in seen)


def test_a_text_of_many_lots_is_tokenized_as_one(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, text = load_tokenizer(sound), "\n".join([TEXT] * 40)
    whole = tokenizer.encode(text)
    monkeypatch.setattr(module, "LOT", 300)
    assert tokenizer.encode(text) == whole


def test_threads_share_one_and_answers_survive_its_process(sound: Path) -> None:
    tokenizer = load_tokenizer(sound)
    texts = [f"{TEXT} {number}" for number in range(4)]
    said: dict[int, str] = {}

    def write(number: int) -> None:
        written = Detokenizer(tokenizer)
        for place, token in enumerate(tokenizer.encode(texts[number])):
            if number == 0 and place % 20 == 10:
                tokenizer.close()
            said[number] = written(token)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [said[number] for number in range(4)] == texts


def far(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["ĠFrance" if "ĠFrance" in vocabulary else list(vocabulary)[-1]] = 1 << 40


SPOILED: dict[str, tuple[Callable[[dict[str, Any]], object], set[str]]] = {
    "normalizer": (
        lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [DOUBLING] * 30}),
        {"tokenizer_slow", "tokenizer_memory"},
    ),
    "decoder": (
        lambda t: t.update(decoder={"type": "Sequence", "decoders": [t["decoder"], *[DOUBLING] * 40]}),
        {"tokenizer_slow", "tokenizer_memory"},
    ),
    "short precompiled map": (
        lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        {"tokenizer_failed"},
    ),
    "precompiled map that lies": (
        lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
        {"tokenizer_failed", "tokenizer_memory"},
    ),
    "precompiled map out of bounds": (
        lambda t: t.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "CAAAAP//////////YWJj"}),
        {"tokenizer_failed"},
    ),
    "an id beyond 32 bits": (far, {"tokenizer_failed"}),
    "WordPiece without unk": (
        lambda t: t.update(
            model={"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": {"hello": 0}},
        ),
        {"tokenizer_failed"},
    ),
    "Unigram without unk": (
        lambda t: t.update(model={"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0]]}),
        {"tokenizer_failed"},
    ),
    "no model": (lambda t: t.pop("model"), {"tokenizer_failed"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
@pytest.mark.usefixtures("hasty")
def test_a_tokenizer_that_cannot_be_is_one_sentence(folder: Path, name: str) -> None:
    change, keys = SPOILED[name]
    edit(folder, change)
    error = error_of(folder)
    assert error.key in keys
    assert "tokenizer.json" in error.sentence()
    assert "\n" not in error.sentence()


@pytest.mark.usefixtures("hasty")
def test_a_hundred_thousand_special_tokens_are_read_or_stopped(folder: Path) -> None:
    def many(settings: dict[str, Any]) -> None:
        settings["additional_special_tokens"] = [f"<|{number}|>" for number in range(100_000)]

    edit(folder, many, "tokenizer_config.json")
    assert error_of(folder).key in ("tokenizer_slow", "tokenizer_memory")


def test_an_id_far_beyond_the_rest_is_refused_where_the_model_has_no_such_token(folder: Path) -> None:
    edit(folder, lambda t: t["added_tokens"].append({"id": 10**9, "content": "<far>", **SPECIAL}))
    edit(folder, lambda t: t["model"]["vocab"].update({"!": 2**32 - 1}))
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode("Hello!")
    with pytest.raises(CheckpointError) as caught:
        tokenizer.check(ids, 320)
    assert caught.value.key == "tokenizer_beyond"
    assert "4294967295" in caught.value.sentence()
    assert tokenizer.decode(ids) == "Hello!"
    tokenizer.check(tokenizer.encode("Hello"), 320)


@pytest.mark.parametrize("value", ["2048", [1], {}, True], ids=repr)
def test_a_length_of_a_wrong_type_is_named(folder: Path, value: Any) -> None:
    edit(folder, lambda t: t.update(model_max_length=value), "tokenizer_config.json")
    error = error_of(folder)
    assert error.key == "tokenizer_setting"
    assert "model_max_length" in error.sentence()
    assert "tokenizer_config.json" in error.sentence()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize(
    ("content", "key"),
    [("[1]", "not_an_object"), ("{", "damaged_file"), ('{"a":' * 100 + "1" + "}" * 100, "too_deep")],
    ids=["list", "cut", "deep"],
)
def test_a_file_that_is_no_object_is_named(folder: Path, name: str, content: str, key: str) -> None:
    (folder / name).write_text(content)
    error = error_of(folder)
    assert (error.key, error.values["file"]) == (key, name)


def test_sizes_in_the_models_config_are_not_looked_at(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama", "num_labels": 1000000000, "vocab_size": "many"}')
    use(folder)


def test_a_vocabulary_that_knows_nothing_is_not_the_templates_fault(folder: Path) -> None:
    edit(folder, lambda t: t["model"].update(vocab={}, merges=[]))
    edit(folder, lambda t: t.update(added_tokens=[]))
    with pytest.raises(CheckpointError) as caught:
        prompt_ids(load_tokenizer(folder), [{"role": "user", "content": "Hello"}])
    assert caught.value.key == "tokenizer_failed"
    assert "tokenizer.json" in caught.value.sentence()


def test_without_any_file_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.key == "no_tokenizer"


def test_bytes_that_are_no_text_do_not_end_an_answer(tmp_path: Path) -> None:
    """A tokenizer with bytes to fall back on, as Llama 2, Mistral and Gemma have; the answer is random bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", *names], show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 20, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:1]
    whole = Tokenizer.from_str(json.dumps(content))
    PreTrainedTokenizerFast(tokenizer_object=whole, unk_token="<unk>").save_pretrained(tmp_path)
    guarded, draw = load_tokenizer(tmp_path), random.Random(0)
    for _ in range(20):
        ids = [draw.randrange(1, whole.get_vocab_size()) for _ in range(60)] + guarded.encode(" Paris")
        written = Detokenizer(guarded)
        text = [written(token) for token in ids][-1]
        assert text.endswith(" Paris")
