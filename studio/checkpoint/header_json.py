"""A safetensors header as JSON, held to what the safetensors library takes and a little less: whatever that refuses is
refused here. Knows nothing of what the claims mean.
"""

import json
from typing import Any


def claims_of(raw: bytes) -> dict[str, Any]:
    """Return a header's claims by name. Raises ValueError for what is no header to the safetensors library.

    Python's parser takes UTF-16, halves of surrogate pairs, NaN, keys that are there twice, and -0 as a whole number.
    """
    claims = json.loads(raw.decode("utf-8"), object_pairs_hook=_distinct, parse_int=_count, parse_constant=_no_number)
    metadata = claims.pop("__metadata__", None)
    said = [] if metadata is None else [*metadata.keys(), *metadata.values()]
    if not all(isinstance(each, str) for each in said):
        raise ValueError("metadata are words")
    if b"\\u" in raw:  # the only way to write half a pair in UTF-8
        "".join((*claims, *said)).encode()
    return dict(claims)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands for two things")
    return found


def _count(digits: str) -> int:
    if digits.startswith("-"):
        raise ValueError("no size or place is negative, -0 included")
    return int(digits)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
