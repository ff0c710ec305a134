"""Sound bytes and sound JSON, spoiled; by hypothesis, so that a number names each of them. Knows no studio."""

import json
import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 255, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 0.5, -0.0, 1e308,
    math.nan, math.inf, "", "a", "a" * 5000, "\x00", "\ud800", "\x1b[2J", "../../etc/passwd", "/dev/zero", "{x}", "%s",
    "<script>alert(1)</script>", "(a+)+$", [], {}, [None], [[]], {"": {}}, [0] * 1000, "llama", "__class__",
)  # fmt: skip
NUMBERS = (0, 1, 2, 31, 32, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63, 2**64 - 1)
Step = tuple[str, int, int]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container within a value with each of its keys, the outermost first; not beyond a few thousand."""
    waiting, count = [value], 0
    while waiting and count < 5000:
        here = waiting.pop(0)
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ()
        for key in list(keys)[:200]:
            count += 1
            yield here, key
            waiting.append(here[key])


def spoiled_json(sound: bytes, steps: Sequence[Step]) -> bytes:
    """Return JSON in which so many places hold something else, are gone, or have moved."""
    content = {"": json.loads(sound)}
    for kind, where, what in steps:
        found = list(places(content))
        holder, key = found[where % len(found)]
        if kind == "gone" and holder is not content:
            del holder[key]
        elif kind == "moved":
            other, name = found[what % len(found)]
            holder[key] = json.loads(
                json.dumps(other.get(name) if isinstance(other, dict) else other[name % len(other)])
            )
        elif kind == "renamed" and isinstance(holder, dict) and holder is not content:
            holder[str(ODD[what % len(ODD)])] = holder.pop(key)
        elif kind == "many" and isinstance(holder[key], list):
            holder[key] = (holder[key] * 50)[:2000]
        else:
            holder[key] = deepcopy(ODD[what % len(ODD)])  # which the next step may spoil in turn
    return json.dumps(content[""]).encode()


def spoiled_bytes(sound: bytes, steps: Sequence[Step]) -> bytes:
    """Return bytes of which so many were flipped, taken out, doubled, cut off or replaced by a number."""
    raw = bytearray(sound)
    for kind, where, what in steps:
        at = where % (len(raw) + 1)
        if kind == "gone":
            del raw[at : at + what % 64]
        elif kind == "moved":
            raw[at:at] = raw[at : at + what % 256]
        elif kind == "renamed" and at < len(raw):
            raw[at] ^= 1 << what % 8
        elif kind == "many":
            del raw[max(at, 8) :]
        else:
            width = (1, 2, 4, 8)[where % 4]
            number = NUMBERS[what % len(NUMBERS)] & ((1 << 8 * width) - 1)
            raw[at : at + width] = number.to_bytes(width, "little")
    return bytes(raw)


KINDS = ("odd", "odd", "odd", "gone", "moved", "renamed", "many")
STEPS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 1 << 20), st.integers(0, 1 << 20)), min_size=1, max_size=4
)
"""What is done to a sound input, one after the other."""
