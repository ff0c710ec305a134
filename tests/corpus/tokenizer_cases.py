"""Tokenizers and templates that loop, grow, lie or reach for Python."""

from collections.abc import Callable
from typing import Any

from tests.corpus.case import CHAT, SECRET, TOKENIZER, Case, Place, edit

BAD = ("damaged_file", "no_tokenizer", "tokenizer_failed", "tokenizer_slow", "tokenizer_memory", "tokenizer_setting",
       "tokenizer_beyond", "file_too_large")  # fmt: skip
FAILED = ("template_failed", "template_endless", "template_memory", "template_drops_message")
DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
FIRST = {"type": "Replace", "pattern": {"Regex": "."}, "content": "a"}


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], None]:
    return lambda place: edit(place.llama() / TOKENIZER, change)


def settings(**changes: object) -> Callable[[Place], None]:
    return lambda place: edit(place.llama() / "tokenizer_config.json", lambda said: said.update(changes))


def raw(content: bytes) -> Callable[[Place], object]:
    return lambda place: (place.llama() / TOKENIZER).write_bytes(content)


def template(words: str) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        (place.llama() / "chat_template.jinja").write_text(words.replace("MARKER", str(place.marker)))
        place.secret.write_text(SECRET)

    return build


def far(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary[next(iter(vocabulary))] = 2**31


def opened(name: str, build: Callable[[Place], object], *keys: str, may_work: bool = False) -> Case:
    return Case(name, build, keys, CHAT, may_work=may_work)


GLOBALS = "cycler.__init__.__globals__.os.popen('touch MARKER').read()"
CLASSES = "''.__class__.__mro__[1].__subclasses__()"
CASES = (
    opened("not JSON", raw(b"{"), *BAD),
    opened("empty", raw(b""), *BAD),
    opened("nested a million deep", raw(b"[" * 1_000_000), *BAD),
    opened("a list", raw(b"[]"), *BAD, "not_an_object"),
    opened("a replacement that doubles, thirty times", tokenizer(lambda said: said.update(
        normalizer={"type": "Sequence", "normalizers": [FIRST, *[DOUBLING] * 30]})), *BAD),
    opened("a pattern that never ends", tokenizer(lambda said: said.update(
        normalizer={"type": "Replace", "pattern": {"Regex": "(l|l|ll)*(.*a)*(.*b)*(.*c)*$"}, "content": "x"})), *BAD,
           may_work=True),
    opened("one id far beyond the rest", tokenizer(far), *BAD, may_work=True),
    opened("words without an unknown one", tokenizer(lambda said: said.update(
        model={"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
               "max_input_chars_per_word": 100})), *BAD, may_work=True),
    opened("a model of a type that is none", tokenizer(lambda said: said["model"].update(type="Oracle")), *BAD),
    opened("no vocabulary", tokenizer(lambda said: said["model"].update(vocab={})), *BAD),
    opened("a vocabulary that is a list of lists", tokenizer(lambda said: said["model"].update(vocab=[[[]]])), *BAD),
    opened("merges of words that are not there", tokenizer(lambda said: said["model"].update(merges=["q z9", "x"])),
           *BAD),
    opened("a hundred thousand tokens added", tokenizer(lambda said: said.update(added_tokens=[
        {"id": 1000 + i, "content": f"<{i}>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False} for i in range(100_000)])), *BAD, may_work=True),
    opened("a decoder that is none", tokenizer(lambda said: said.update(decoder={"type": "Nothing"})), *BAD),
    opened("a split by nothing", tokenizer(lambda said: said.update(pre_tokenizer={
        "type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False})), *BAD),
    opened("a length of words", settings(model_max_length="long"), *BAD, "wrong_config_value", may_work=True),
    opened("a length of no number", settings(model_max_length=-1e400), *BAD, "wrong_config_value", may_work=True),
    opened("a class by a path", settings(tokenizer_class="../../evil.Tokenizer"), *BAD, "needs_remote_code",
           may_work=True),
    opened("a class by code", settings(auto_map={"AutoTokenizer": ["tokenization_own.Tokenizer", None]}), *BAD,
           "needs_remote_code", may_work=True),
    opened("special tokens that are objects", settings(eos_token={"content": {"content": []}}), *BAD,
           "wrong_config_value", may_work=True),
    opened("template that loops", template("{% for i in range(10**9) %}{% endfor %}"), *FAILED),
    opened("template that loops in loops", template(
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"), *FAILED),
    opened("template that grows", template("{{ 'a' * 10**10 }}"), *FAILED),
    opened("template that grows by formatting", template("{{ '%0999999999d' % 1 }}"), *FAILED),
    opened("template that calls itself", template("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), *FAILED),
    opened("template that reaches for classes", template("{{ " + CLASSES + " }}"), *FAILED),
    opened("template that reaches for the system", template("{{ " + GLOBALS + " }}"), *FAILED),
    opened("template that includes a file", template("{% include '../secret.txt' %}"), *FAILED),
    opened("template that imports", template("{% import 'os' as os %}{{ os.system('touch MARKER') }}"), *FAILED),
    opened("template that gives a number", template("{{ 7 }}"), *FAILED, may_work=True),
    opened("template that gives nothing", template("{{ '' }}"), *FAILED, "empty_prompt", may_work=True),
    opened("template that raises", template("{{ raise_exception('\x1b[2J' * 999) }}"), *FAILED),
    opened("template that does not parse", template("{% if %}{{"), *FAILED),
    opened("template of ten megabytes", template("{{ 'a' }}" + "a" * 10_000_000), *FAILED, "file_too_large"),
    opened("template whose power never ends", template("{{ 9**9**9**9 }}"), *FAILED),
    opened("template that is no text", lambda place: (place.llama() / "chat_template.jinja").write_bytes(b"\xff\xfe"),
           *FAILED, "damaged_file"),
    opened("template that is an object", settings(chat_template={"a": [1]}), *BAD, *FAILED, may_work=True),
)  # fmt: skip
