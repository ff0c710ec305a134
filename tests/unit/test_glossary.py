"""The glossary points at what the code defines, and gives each word one meaning."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| word |", "| --- |"))
]
PLACES = [(word, *place) for word, *_, where in ROWS for place in re.findall(r"`(studio/[^`]+)`(?: `(\w+)`)?", where)]
C_FUNCTION = re.compile(r"^(?:\w[\w\s]*[\s*])(\w+)\([^;{}]*\)\s*\{", re.MULTILINE)


def defined(file: Path) -> set[str]:
    """Return the names that a file defines: Python's classes, functions, constants and fields, or C's functions."""
    code = file.read_text(encoding="utf-8")
    return set(_of_body(ast.parse(code).body)) if file.suffix == ".py" else set(C_FUNCTION.findall(code))


def _of_body(body: list[ast.stmt]) -> Iterator[str]:
    """Yield what stands in a module or a class; not what is imported, nor what a function has to itself."""
    for each in body:
        if isinstance(each, ast.ClassDef | ast.FunctionDef):
            yield each.name
        if isinstance(each, ast.ClassDef):
            yield from _of_body(each.body)
        targets = (
            each.targets if isinstance(each, ast.Assign) else [each.target] if isinstance(each, ast.AnnAssign) else []
        )
        yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def test_each_word_stands_once() -> None:
    words = [word for word, *_ in ROWS]
    assert len(words) == len(set(words)) > 50
    assert all(len(row) == 3 for row in ROWS)
    assert {word for word, *_ in PLACES} == set(words)


@pytest.mark.parametrize(("word", "file", "name"), PLACES, ids=[f"{word}-{file}" for word, file, _ in PLACES])
def test_a_word_is_defined_where_the_glossary_says(word: str, file: str, name: str) -> None:
    assert not name or name in defined(ROOT / file)
    assert (ROOT / file).is_file()


def test_what_is_imported_called_or_local_is_not_defined(tmp_path: Path) -> None:
    python, c = tmp_path / "a.py", tmp_path / "a.c"
    python.write_text(
        "from b import Mode\nGROUP = 1\nclass Plan:\n    bits: int\n    def size(self):\n        own = Mode()\n"
    )
    c.write_text("static inline float *norm(const float *x,\n    int n) {\n    return meet(x);\n}\nvoid meet(int n);\n")
    assert defined(python) == {"GROUP", "Plan", "bits", "size"}
    assert defined(c) == {"norm"}
