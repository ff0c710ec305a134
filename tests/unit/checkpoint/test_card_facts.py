"""What a stranger's card says for machines: of YAML a few lines, and of these only what can be a name."""

from pathlib import Path

import pytest

from studio.checkpoint.card_facts import MAX_CARD_BYTES, facts_of, languages_of


@pytest.mark.parametrize(
    ("lines", "languages"),
    [
        ("language: en", ("en",)),
        ("language: [en, 'zh', \"pt-BR\"]", ("en", "zh", "pt-BR")),
        ("language:\n- en\n  - no\nlicense: mit", ("en", "no")),
        ("language:\n- en\ntags:\n- de\n- fr", ("en",)),
        ("tags:\n- de\nlanguage: multilingual", ("multilingual",)),
        ("language:\n- <b>\n- en\n- en\n- a b\n- ''\n- ../x", ("en",)),
        ("language:", ()),
        ("language: []", ()),
        ("tags: [en]", ()),
        ("  language: en", ()),
    ],
    ids=["one", "in-a-row", "below", "other-list", "after-a-list", "hostile", "none", "empty", "not-said", "nested"],
)
def test_languages(lines: str, languages: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\n{lines}\n---\n# A model")
    assert languages_of(facts_of(tmp_path / "README.md")) == languages


@pytest.mark.parametrize("said", [None, 7, {"a": 1}, [], [False], "x" * 100, "a\nb"])
def test_what_the_hub_says_is_no_more_trusted(said: object) -> None:
    assert languages_of({"language": said}) == ()


def test_there_is_a_most() -> None:
    assert len(languages_of({"language": [f"a{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(600)]})) == 200


def test_facts_that_begin_after_a_long_beginning_are_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\n" + "x: y\n" * MAX_CARD_BYTES + "license: mit\n---\n")
    assert facts_of(tmp_path / "README.md") == {}


def test_comments_empty_lines_and_a_mark_of_the_byte_order_lose_nothing(tmp_path: Path) -> None:
    lines = "\ufeff---\nlicense: mit # a note\nlanguage:\n- en\n# one more\n\n- c#\n- zh # too\n---\n"
    (tmp_path / "README.md").write_text(lines, encoding="utf-8")
    facts = facts_of(tmp_path / "README.md")
    assert facts == {"license": "mit", "language": ["en", "c#", "zh"]}
