"""Which tests run on every change: all but those marked ``thorough``, and of a large product a fixed share.

A claim over all modes, groups and shapes is one function with hundreds of cases, most of which fail together: of each
word in the names of the cases (a mode, a group, a shape) one case runs. ``make test-all`` runs every one. Knows nothing
of what they test.
"""

from collections.abc import Sequence
from zlib import crc32

import pytest

ENOUGH = 16
"""Cases of one function that run in any case."""


def sampled(items: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests that run, in their order, and those that are left to ``make test-all``."""
    functions: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("thorough") is None:
            functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {item.nodeid for cases in functions.values() for item in covering(cases)}
    return [item for item in items if item.nodeid in kept], [item for item in items if item.nodeid not in kept]


def covering(cases: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return cases in an order that is arbitrary and the same everywhere: ``ENOUGH``, and those that add a word.

    Of a function marked ``share(n)``, whose cases each have a word of their own, every n-th.
    """
    ordered = sorted(cases, key=lambda item: crc32(item.nodeid.encode()))
    share = cases[0].get_closest_marker("share")
    if share is not None:
        return ordered[:: share.args[0]]
    seen: set[tuple[int, str]] = set()
    kept: list[pytest.Item] = []
    for item in ordered:
        words = set(enumerate(item.nodeid.partition("[")[2].rstrip("]").split("-")))
        if len(kept) < ENOUGH or not words <= seen:
            kept.append(item)
            seen |= words
    return kept
