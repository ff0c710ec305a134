"""Strangers' tokenizers and templates: what is wrong with them is a sentence, and nobody else notices."""

import errno
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from studio.base.errors import CheckpointError, ProcessError, PromptError, UserError
from studio.base.workers.forking import ZYGOTE
from studio.chat.detokenize import Detokenizer
from studio.chat.prompt import prompt_ids
from studio.checkpoint.tokenizer import guarded_tokenizer as module
from studio.checkpoint.tokenizer.guarded_tokenizer import GuardedTokenizer, load_tokenizer
from tests.conftest import TEMPLATE, tiny_tokenizer

TEXT = "The capital of France is Paris, a model."
HELLO = [{"role": "user", "content": "Hello"}]
BRIEF = [{"role": "system", "content": "Be brief."}, *HELLO]
DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer") / "tiny"
    tiny_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to be spoiled."""
    shutil.copytree(sound, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time for everything, so that what loops is stopped sooner."""
    monkeypatch.setattr(module, "SECONDS", 0.5)


def edit(folder: Path, change: Callable[[dict[str, Any]], object], file: str = "tokenizer.json") -> None:
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))


def use(folder: Path) -> None:
    """Do with a tokenizer all that a chat does."""
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(TEXT)
    prompt_ids(tokenizer, HELLO)
    written = Detokenizer(tokenizer)
    for token in ids[:100]:
        written(token)
    tokenizer.decode(ids)


def outcome(folder: Path) -> str:
    """Return what the user is told, nothing where all is well."""
    try:
        use(folder)
    except UserError as error:
        return error.sentence()
    return ""


def error_of(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        use(folder)
    return caught.value


# the sound one


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


def test_its_process_ends_with_it_and_knows_no_secrets(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_owner")
    tokenizer = load_tokenizer(sound)
    pid = tokenizer._process._child.pid  # type: ignore[union-attr]
    assert b"hf_of_the_owner" not in Path(f"/proc/{pid}/environ").read_bytes()
    del tokenizer
    until = time.monotonic() + 30
    while time.monotonic() < until and is_running(pid):
        time.sleep(0.01)
    assert not is_running(pid)


def test_a_process_that_cannot_be_had_or_is_lost_is_no_fault_of_the_files(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(sound)
    with monkeypatch.context() as lost:
        lost.setattr(ZYGOTE, "reap", lambda *_: None)  # as where the zygote has ended too
        os.kill(tokenizer._process._child.pid, signal.SIGKILL)  # type: ignore[union-attr]
        with pytest.raises(ProcessError) as caught:
            tokenizer.encode("a text")
    assert caught.value.key == "worker_orphaned"

    def refuse(*_: object) -> None:
        raise OSError(errno.EAGAIN, "refused")

    with monkeypatch.context() as full:
        full.setattr(ZYGOTE, "fork", refuse)
        with pytest.raises(ProcessError) as caught:
            tokenizer.encode("a text")
    assert caught.value.key == "no_process"
    assert tokenizer.encode("a text")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.usefixtures("hasty")
def test_the_next_question_is_answered_after_one_that_ended_the_process(folder: Path) -> None:
    edit(folder, lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [DOUBLING] * 40}))
    tokenizer = load_tokenizer(folder)
    with pytest.raises(CheckpointError) as caught:
        tokenizer.encode("a")
    assert caught.value.key in ("tokenizer_slow", "tokenizer_memory")
    assert tokenizer.decode(tokenizer.encode("o")) == "o"


# files that are not


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


# answers that are no text


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


# templates


def with_template(folder: Path, template: str) -> GuardedTokenizer:
    (folder / "chat_template.jinja").write_text(template)
    return load_tokenizer(folder)


def prompt_error(tokenizer: GuardedTokenizer, messages: Sequence[dict[str, str]] = HELLO) -> PromptError:
    with pytest.raises(PromptError) as caught:
        prompt_ids(tokenizer, messages)
    return caught.value


PARTS = (
    "{% for m in messages %}{{ m['role'] }}: {% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}|{% endfor %}"
)


def test_a_template_that_wants_parts_is_given_parts(folder: Path) -> None:
    tokenizer = with_template(folder, PARTS)
    assert tokenizer.decode(prompt_ids(tokenizer, BRIEF)) == "system: Be brief.|user: Hello|"


@pytest.mark.parametrize(
    ("template", "messages", "key"),
    [
        ("{{ 5 }}", HELLO, "template_drops_message"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", BRIEF, "system_prompt_dropped"),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}{{ messages[-1].content }}",
         BRIEF, "system_prompt_refused"),
        ("{{ messages[-1].content }}{{ '\\ud800' }}", HELLO, "template_failed"),
        ("{{ raise_exception('no') }}", BRIEF, "template_failed"),
        ("{{ messages[-1].content * 10**9 }}", HELLO, "template_memory"),
        ("{# nothing #}", HELLO, "template_failed"),
    ],
    ids=["number", "drops-system", "refuses-system", "surrogate", "raises", "memory", "nothing"],
)  # fmt: skip
def test_a_template_that_cannot_serve_is_one_sentence(
    folder: Path, template: str, messages: Sequence[dict[str, str]], key: str
) -> None:
    error = prompt_error(with_template(folder, template), messages)
    assert error.key == key
    assert "chat_template.jinja" in error.sentence()


def test_a_message_that_is_changed_is_not_lost(folder: Path) -> None:
    tokenizer = with_template(folder, "{% for m in messages %}{{ m.content | trim | upper }}|{% endfor %}")
    assert tokenizer.decode(prompt_ids(tokenizer, BRIEF)) == "BE BRIEF.|HELLO|"


@pytest.mark.parametrize("value", [5, [5], {"default": 5}, [{"name": "default"}]], ids=repr)
def test_a_template_that_is_no_text_is_named(folder: Path, value: Any) -> None:
    (folder / "chat_template.jinja").unlink()
    edit(folder, lambda t: t.update(chat_template=value), "tokenizer_config.json")
    error = error_of(folder)
    assert error.key == "tokenizer_setting"
    assert "chat_template" in error.sentence()


def test_a_template_is_found_wherever_it_stands(folder: Path) -> None:
    expected = prompt_ids(load_tokenizer(folder), HELLO)
    (folder / "chat_template.jinja").unlink()
    assert prompt_ids(load_tokenizer(folder), HELLO) != expected
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    assert prompt_ids(load_tokenizer(folder), HELLO) == expected
    (folder / "chat_template.json").unlink()
    named = [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": TEMPLATE}]
    edit(folder, lambda t: t.update(chat_template=named), "tokenizer_config.json")
    assert prompt_ids(load_tokenizer(folder), HELLO) == expected


def test_half_a_character_in_a_prompt_or_a_text_is_replaced(sound: Path) -> None:
    tokenizer = load_tokenizer(sound)
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\N{REPLACEMENT CHARACTER}b"
    asked = prompt_ids(tokenizer, [{"role": "user", "content": "a\ud800b \ud83d\ude80"}])
    assert "a\N{REPLACEMENT CHARACTER}b \N{ROCKET}" in tokenizer.decode(asked)


# at random

SECTIONS = (
    "normalizer",
    "pre_tokenizer",
    "decoder",
    "post_processor",
    "added_tokens",
    "model",
    "truncation",
    "padding",
)
ODD = (
    None,
    -1,
    0,
    2**31,
    2**63,
    1e308,
    "",
    "a" * 1000,
    "\ud800",
    [],
    {},
    True,
    [None],
    {"type": "Nothing"},
    "Sequence",
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container within a value with each of its keys."""
    if isinstance(value, dict):
        inside = list(value.items())
    else:
        inside = list(enumerate(value)) if isinstance(value, list) else []
    return [(value, key) for key, _ in inside] + [place for _, each in inside for place in places(each)]


@pytest.mark.parametrize("seed", range(24))
def test_a_tokenizer_spoiled_at_random_works_or_is_one_sentence(folder: Path, seed: int) -> None:
    draw = random.Random(seed)

    def spoil(tokenizer: dict[str, Any]) -> None:
        for _ in range(draw.randrange(1, 3)):
            section = draw.choice(SECTIONS)
            if draw.random() < 0.3:
                tokenizer[section] = draw.choice(ODD)
            else:
                container, key = draw.choice(places(tokenizer[section]) or [(tokenizer, section)])
                container[key] = draw.choice(ODD)

    edit(folder, spoil)
    assert "\n" not in outcome(folder)
