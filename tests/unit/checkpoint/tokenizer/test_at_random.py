"""Tokenizers spoiled at random: each works, or is one sentence."""

import random
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import UserError
from tests.tokenizer_folders import edit, use


def outcome(folder: Path) -> str:
    """Return what the user is told, nothing where all is well."""
    try:
        use(folder)
    except UserError as error:
        return error.sentence()
    return ""


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


ODD: tuple[Any, ...] = (
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
