"""A module opens by saying what it is and what it does not know, so that a reader knows where not to look."""

import ast
import re

import pytest

from tests.unit.test_mirrors import STUDIO, modules

LIMIT = re.compile(
    r"\b(Knows?|Decides|Wires|Handles|Changes|Measures|Reads|Rounds|Runs|Trusts|Needs)\b[^.]*?"
    r"\b(no|not|none|nothing|neither|nobody|only|but)\b"
    r"|\bPure\b",
    re.IGNORECASE,
)
"""``Knows no model``, ``Decides nothing``, ``Wires no events``; what is pure knows nothing but what it is given."""


def says_what_it_does_not_know(docstring: str) -> bool:
    return LIMIT.search(" ".join(docstring.split())) is not None


def docstring_of(module: str) -> str:
    return ast.get_docstring(ast.parse((STUDIO / f"{module}.py").read_text(encoding="utf-8"))) or ""


def test_a_module_says_what_it_does_not_know() -> None:
    assert [module for module in modules() if not says_what_it_does_not_know(docstring_of(module))] == []


@pytest.mark.parametrize(
    ("docstring", "is_enough"),
    [
        ("Answers, token by token. Knows nothing of pages or files.", True),
        ("Bytes of blocks. Knows neither\nfiles nor models.", True),
        ("The words beside the map. Pure.", True),
        ("The entry. Decides nothing.", True),
        ("Numbers as people read them.", False),
        ("Knows every format. Not one is left out.", False),
    ],
)
def test_what_counts_as_saying_so(docstring: str, is_enough: bool) -> None:
    assert says_what_it_does_not_know(docstring) is is_enough
