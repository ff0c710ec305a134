"""The journal of an interrupted compression: believed up to where it was cut short, and not at all of another plan."""

import math
from collections.abc import Mapping

import pytest

from studio.compression.journal import is_sound, whole_lines
from studio.quantization.scheme import Scheme

SCHEMES: dict[str, Scheme | None] = {"up": Scheme.parse("int8_sym"), "norm": None}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['["up", 0.5]', '["norm", null]'], [("up", 0.5), ("norm", None)]),
        (['["up", 0.5]', '["nor'], [("up", 0.5)]),
        (["", '["up", 0.5]'], []),
        ([], []),
    ],
    ids=["whole", "cut", "cut-first", "empty"],
)
def test_entries_count_up_to_one_that_is_cut_short(lines: list[str], expected: list[tuple[str, float | None]]) -> None:
    assert list(whole_lines(lines)) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, True),
        ({"up": 0.5, "norm": None}, True),
        ({"up": None}, False),
        ({"norm": 0.5}, False),
        ({"up": math.nan}, False),
        ({"up": math.inf}, False),
        ({"up": -0.1}, False),
        ({"up": "0.5"}, False),
        ({"up": 1}, False),
    ],
    ids=str,
)
def test_what_is_compressed_has_an_error_and_what_is_kept_none(found: Mapping[str, object], expected: bool) -> None:
    assert is_sound(found, SCHEMES) is expected


def test_a_tensor_of_another_plan_is_no_entry() -> None:
    with pytest.raises(KeyError):
        is_sound({"down": 0.5}, SCHEMES)
