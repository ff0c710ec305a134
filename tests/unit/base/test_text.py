"""The catalogues say the same things in every language, and every error the studio raises has its sentence."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import pytest

from studio.base import errors
from studio.base.text import DEFAULT, LANGUAGES, catalogue, preferred, text

STUDIO = Path(errors.__file__).parents[1]
USER_ERRORS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.UserError)
}


@dataclass(frozen=True)
class Raised:
    """A call that makes a UserError: where it stands, the key it gives, the values it gives."""

    place: str
    key: str
    values: frozenset[str]


def raised_in(path: Path) -> list[Raised]:
    """Return every UserError made in a file. A key that cannot be read off the source is ``"?"``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def keys(node: ast.expr) -> list[str]:
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if isinstance(node, ast.IfExp):
            return keys(node.body) + keys(node.orelse)
        if isinstance(node, ast.Name) and node.id in assigned:
            return keys(assigned[node.id])
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            table = assigned.get(node.value.id)
            return [key for value in table.values for key in keys(value)] if isinstance(table, ast.Dict) else ["?"]
        return ["?"]

    return [
        Raised(
            f"{path.relative_to(STUDIO.parent)}:{call.lineno}",
            key,
            frozenset(keyword.arg or "**" for keyword in call.keywords),
        )
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and call.args and _called(call) in USER_ERRORS
        for key in keys(call.args[0])
    ]


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", "") or getattr(call.func, "id", "")


def places(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_keys(language: str) -> None:
    assert catalogue(language).keys() == catalogue(DEFAULT).keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_places_in_a_sentence(language: str) -> None:
    assert {key: places(sentence) for key, sentence in catalogue(language).items()} == {
        key: places(sentence) for key, sentence in catalogue(DEFAULT).items()
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_blank(language: str) -> None:
    blank = [key for key, sentence in catalogue(language).items() if not sentence.strip()]
    assert blank == []


def test_every_error_raised_has_a_sentence_whose_places_it_fills() -> None:
    """One test for all: to know of each where it is raised would be to read the whole source while tests are named."""
    raised = {each for path in STUDIO.rglob("*.py") for each in raised_in(path)}
    sentences = catalogue(DEFAULT)
    assert len(raised) > 100
    assert [each for each in raised if f"error.{each.key}" not in sentences] == []
    assert [each for each in raised if not places(sentences[f"error.{each.key}"]) <= each.values] == []


def test_an_error_says_its_sentence_with_its_values() -> None:
    error = errors.CheckpointError("damaged_file", file="model.safetensors")
    assert "model.safetensors" in str(error)
    assert "{" not in str(error)


def test_a_missing_text_is_an_error_not_a_blank() -> None:
    with pytest.raises(KeyError):
        text("error.no_such_key")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("en-US,en;q=0.9", "en"),
        ("zh-CN,zh;q=0.9,en-US;q=0.8,en;q=0.7", "zh-Hans"),
        ("zh-TW,zh;q=0.9,en-US;q=0.8,en;q=0.7", "zh-Hant"),
        ("zh-CN,zh;q=0.8,zh-TW;q=0.7,zh-HK;q=0.5,en-US;q=0.3,en;q=0.2", "zh-Hans"),
        ("zh-HK", "zh-Hant"),
        ("zh-MO", "zh-Hant"),
        ("zh-SG", "zh-Hans"),
        ("zh", "zh-Hans"),
        ("zh-Hant-TW,en", "zh-Hant"),
        ("en-GB,en;q=0.9,zh-CN;q=0.8", "en"),
        ("fr-FR,fr;q=0.9,zh-TW;q=0.5,en;q=0.3", "zh-Hant"),
        ("en;q=0.3,zh-CN;q=0.9", "zh-Hans"),
        ("en; q=0.3, zh-CN; q=0.9", "zh-Hans"),
        ("zh-Hans-HK", "zh-Hans"),
        ("fr, zh;q=0", "en"),
        ("de-DE,de;q=0.9", "en"),
        ("*", "en"),
        ("", "en"),
        (";;q=,,q", "en"),
    ],
)
def test_the_language_is_the_first_wish_we_have(header: str, language: str) -> None:
    assert preferred(header) == language


REPLACED: dict[str, tuple[str, ...]] = {
    "en": (
        "each weight to the next step", "gptq: both", "The answers part at", "word in 3", "Answers that change",
        "cut at the longest answer", "Floor", "Where the group does not divide", "Ratio goes by", "Take it",
    ),
    "zh-Hans": (
        "偏移（", "编译的步骤", "处分开", "预测损害", "带走", "奈特", "nats", "NNCF 不用数据", "你",
        "个词元 读取", "所在组",
    ),
    "zh-Hant": (
        "偏移（", "編譯的步驟", "處分開", "預測損害", "帶走", "奈特", "nats", "NNCF 不用資料", "你",
        "逐列", "取整", "所在組", "占", "256 無法",
    ),
}  # fmt: skip
"""What first-time visitors met and did not understand, or that was said in two ways."""


@pytest.mark.parametrize("language", LANGUAGES)
def test_wording_that_misled_is_gone(language: str) -> None:
    said = catalogue(language)
    found = {
        key: words
        for key, words in said.items()
        for phrase in REPLACED[language]
        if phrase in words.replace("{nats}", "")
    }
    assert found == {}


@pytest.mark.parametrize("language", ["zh-Hans", "zh-Hant"])
def test_the_embeddings_are_those_of_words(language: str) -> None:
    lone = re.compile("(?<![词詞])嵌入")
    assert [key for key, words in catalogue(language).items() if lone.search(words)] == []
