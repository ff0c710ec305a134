"""llama.cpp's tokenizers give what transformers' give, tokens that end answers end them, and templates read the same.

Templates are rendered by the library by which node-llama-cpp renders what it reads from a file; llama.cpp's own
renderer is part of its programs, not of its library, and was not run.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import AutoTokenizer

from studio.checkpoint.checkpoint import Checkpoint
from studio.export.gguf.file import header, new_writer
from studio.export.gguf.llama_cpp import LlamaCpp, Question, Reply
from studio.export.gguf.vocabulary import read_vocabulary
from tests.engines import models
from tests.engines.vocabularies import ALMOST, HARD, TOKENIZERS, made

TURNS = ("a<|eot_id|>b", "</s>x y", " <s> hi", "<|user|>\nHi<|end|>\n", "<|im_start|>user\nhi there<|im_end|>\n")
SAYS = ({"role": "system", "content": "You are helpful."}, {"role": "user", "content": "  Hi 你好 \n"})
ANSWERED = (*SAYS, {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "<|eot_id|>?"})
LLAMA3_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim"
    " + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def words_only(folder: Path, out: Path, size: int, pre: str | None = None) -> Path:
    """Write a file that says a folder's tokens and holds no weights."""
    writer = new_writer("llama")
    read_vocabulary(folder, SimpleNamespace(vocab_size=size), pre).write(writer)
    out.write_bytes(header(writer, {}))
    return out


def prompts_of(tokenizer: Any) -> list[str]:
    conversations = [[*SAYS], [*ANSWERED]]
    return [tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in conversations]


def tokens_of(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=False).input_ids for text in texts]


def asked(engine: LlamaCpp, folder: Path, names: list[str], texts: list[str], named: bool = False) -> dict[str, Reply]:
    questions = []
    for name in names:
        (folder / name).mkdir()
        made(name).save_pretrained(folder / name)
        file = words_only(folder / name, folder / f"{name}.gguf", len(made(name)), name if named else None)
        questions.append(Question(file, (), texts))
    return dict(zip(names, engine.ask(*questions), strict=True))


def differing(name: str, texts: list[str], reply: Reply) -> list[str]:
    rows = zip(texts, tokens_of(made(name), texts), reply.tokens, strict=True)
    return [text for text, expected, found in rows if expected != found]


def test_every_kind_of_tokenizer_gives_the_tokens_of_transformers(engine: LlamaCpp, tmp_path: Path) -> None:
    texts = [*HARD, *TURNS]
    for name, reply in asked(engine, tmp_path, list(TOKENIZERS), texts).items():
        expected = (
            [] if name != "llama-metaspace" else [each for each in texts if each[:1] in " \u2581" or each in TURNS]
        )
        assert set(differing(name, texts, reply)) <= set(expected), name
        assert read_vocabulary(tmp_path / name, SimpleNamespace(vocab_size=len(made(name)))).pre == TOKENIZERS[name][0]


def test_the_newer_llama_s_is_read_as_the_older_one(engine: LlamaCpp, tmp_path: Path) -> None:
    """It puts no second space before a text that begins with one, and none after a special token; llama.cpp does."""
    texts = [" two", "</s>x y"]
    [reply] = asked(engine, tmp_path, ["llama-metaspace"], texts).values()
    assert reply.tokens == tokens_of(made("llama"), texts)


def test_a_name_that_is_only_offered_differs_in_marks_alone(engine: LlamaCpp, tmp_path: Path) -> None:
    for name, reply in asked(engine, tmp_path, list(ALMOST), [*HARD, *TURNS], named=True).items():
        assert all("हिन्दी" in text for text in differing(name, [*HARD, *TURNS], reply)), name


def test_the_built_in_model_s_words_and_template_are_its_own(
    engine: LlamaCpp, tmp_path: Path, builtin: Checkpoint
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(builtin.path)
    file = words_only(builtin.path, tmp_path / "words.gguf", len(tokenizer))
    prompts = prompts_of(tokenizer)
    [reply] = engine.ask(Question(file, (), [*HARD, *prompts], [SAYS, ANSWERED]))
    assert reply.tokens == tokens_of(tokenizer, [*HARD, *prompts])
    assert reply.prompts == prompts


def test_a_template_like_llama_3_s_is_read_from_the_file(engine: LlamaCpp, tmp_path: Path) -> None:
    made("llama-3").save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(LLAMA3_TEMPLATE)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    prompts = prompts_of(tokenizer)
    file = words_only(tmp_path, tmp_path / "words.gguf", len(tokenizer))
    [reply] = engine.ask(Question(file, (), prompts, [SAYS, ANSWERED]))
    assert reply.prompts == prompts
    assert reply.tokens == tokens_of(tokenizer, prompts)


def test_each_of_several_tokens_ends_an_answer(engine: LlamaCpp, tmp_path: Path, own_cache: Path) -> None:
    """The greedy answer goes on with a, b, c; a file whose model ends at c, or at b and c, ends there."""
    source = models.save("llama-llama3", tmp_path / "source")
    models.written(source, tmp_path / "plain", mode="q8_0", pins=["*=none"])
    text = models.ids("llama-llama3")
    going: list[int] = []
    while len(set(going)) < 3:
        going.append(int(models.truth(tmp_path / "plain", [*text, *going])[-1].argmax()))
        assert len(going) < 40
    *_, second, third = dict.fromkeys(going)
    cases = {"one": [1, third], "both": [third, 1, second]}
    questions = [Question(tmp_path / "plain.gguf", text, answer=len(going))]
    for name, ends in cases.items():
        (source / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        models.written(source, tmp_path / name, mode="q8_0", pins=["*=none"])
        questions.append(Question(tmp_path / f"{name}.gguf", text, answer=len(going)))
    plain, one, both = engine.ask(*questions)
    assert plain.answer == going
    assert one.answer == going[: going.index(third)]
    assert both.answer == going[: going.index(second)]
    assert {1, second, third} <= set(both.ends)
    assert not {second, third} & set(plain.ends)
