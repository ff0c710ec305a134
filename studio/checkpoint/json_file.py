"""A JSON object that anyone may have written, bounded before and while it is read. Knows nothing of what its keys mean.

A file of some megabytes can hold millions of values, each a hundred times its size in memory, and numbers that take
Python minutes: how much there may be is counted before a parser sees it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.base.errors import CheckpointError
from studio.base.units import format_bytes
from studio.checkpoint.file_names import ADAPTER, CONFIG, GENERATION, RECIPE

MAX_BYTES = {CONFIG: 5_000_000, GENERATION: 1_000_000, ADAPTER: 1_000_000, RECIPE: 20_000_000}
MAX_OTHER_BYTES = 50_000_000
"""An index, above all."""
MAX_VALUES = 2_000_000
"""Of an index, which has two for each tensor, or of a tokenizer's settings."""
MAX_DEPTH = 64
MAX_DIGITS = 300
"""A longer number is taken as a float, and so for infinite: nothing that we read has a use for one."""


def read_json(path: Path, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """Return a JSON object from a file. Raises CheckpointError when it is missing, too large, or not one."""
    if not path.is_file():
        raise CheckpointError("missing_file", file=path.name)
    check_bytes(path.name, path.stat().st_size)
    return parse_json(path.name, path.read_bytes(), max_values)


def check_bytes(file: str, size: int) -> None:
    """Raise CheckpointError for a file that is larger than any of its kind needs to be."""
    limit = MAX_BYTES.get(file, MAX_OTHER_BYTES)
    if size > limit:
        raise CheckpointError("file_too_large", file=file, size=format_bytes(size), limit=format_bytes(limit))


def parse_json(file: str, raw: bytes, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """Return the JSON object that ``raw`` is. Raises CheckpointError when it is none, too deep, or of too many values.

    NaN and Infinity, which Python's own writer knows, are let pass: what a value may be is the reader's to say.
    """
    # Every value but the first of an object or list has a comma before it; those in strings count too, which is safe.
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > max_values:
        raise CheckpointError("too_many_values", file=file, limit=max_values)
    try:
        content = json.loads(raw.decode("utf-8"), parse_int=_integer)
    except RecursionError as error:
        raise CheckpointError("too_deep", file=file, limit=MAX_DEPTH) from error
    except ValueError as error:
        raise CheckpointError("damaged_file", file=file) from error
    if not isinstance(content, dict):
        raise CheckpointError("not_an_object", file=file)
    check_depth(file, content)
    return content


def check_depth(file: str, content: Mapping[str, Any] | list[Any]) -> None:
    """Raise CheckpointError for more levels than a function that calls itself for each can take."""
    level: list[Any] = [content]
    for _ in range(MAX_DEPTH):
        inner = [each for each in level if isinstance(each, dict | list)]
        if not inner:
            return
        level = [value for each in inner for value in (each.values() if isinstance(each, dict) else each)]
    raise CheckpointError("too_deep", file=file, limit=MAX_DEPTH)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)
