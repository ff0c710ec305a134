"""A tokenizer's folder for the tests: edited, used, and what came of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import UserError
from studio.chat.detokenize import Detokenizer
from studio.chat.prompt import prompt_ids
from studio.checkpoint.tokenizer.guarded_tokenizer import load_tokenizer

TEXT = "The capital of France is Paris, a model."


HELLO = [{"role": "user", "content": "Hello"}]


DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


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


def error_of(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        use(folder)
    return caught.value
