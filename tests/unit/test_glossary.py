"""The glossary points at code that is there, and gives each word one meaning."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| word |", "| --- |"))
]
PLACES = [(word, *place) for word, *_, where in ROWS for place in re.findall(r"`(studio/[^`]+)`(?: `(\w+)`)?", where)]


def test_each_word_stands_once() -> None:
    words = [word for word, *_ in ROWS]
    assert len(words) == len(set(words)) > 50
    assert all(len(row) == 3 for row in ROWS)
    assert {word for word, *_ in PLACES} == set(words)


@pytest.mark.parametrize(("word", "file", "name"), PLACES, ids=[f"{word}-{file}" for word, file, _ in PLACES])
def test_a_word_is_where_the_glossary_says(word: str, file: str, name: str) -> None:
    code = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"\b{name}\b", code) if name else code
