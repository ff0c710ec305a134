"""A machine and a context are read in every form and written one way; what names none is nothing."""

import pytest

from studio.planning.hosts import GB, HOSTS, own_host
from studio.planning.room import Room


@pytest.mark.parametrize(
    ("words", "written", "tokens", "bits"),
    [
        ("fits:8GB@8k", "fits:8GB@8k", 8192, 16), ("FITS:8 gb@8192", "fits:8GB@8k", 8192, 16),
        ("fits:0.5TB", "fits:0.5TB", None, 16), ("fits:laptop16@1000", "fits:laptop16@1000", 1000, 16),
        ("fits:GPU24@32k/kv8", "fits:gpu24@32k/kv8", 32768, 8), ("fits:8GB/kv16", "fits:8GB", None, 16),
    ],
)  # fmt: skip
def test_it_is_read_and_written(words: str, written: str, tokens: int | None, bits: int) -> None:
    room = Room.parse(words)
    assert room is not None
    assert (str(room), room.tokens, room.kv_bits) == (written, tokens, bits)
    assert Room.parse(str(room)) == room


@pytest.mark.parametrize(
    "words",
    [
        "8GB",
        "fits:",
        "fits:0GB",
        "fits:60%",
        "fits:desk",
        "fits:8GB@",
        "fits:8GB@0",
        "fits:8GB@8k/kv5",
        "fits:9999999TB",
    ],
)
def test_other_words_are_none(words: str) -> None:
    assert Room.parse(words) is None


def test_the_machine_is_the_menus_or_as_a_visitors_own() -> None:
    named, own = Room.parse("fits:laptop16"), Room.parse("fits:16GB")
    assert named is not None
    assert own is not None
    assert named.host == HOSTS["laptop16"]
    assert own.host == own_host(16, 0)
    assert own.host.available == 12 * GB
