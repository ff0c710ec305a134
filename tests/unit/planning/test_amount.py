"""Numbers with units are read as people write them, and written one way."""

import pytest

from studio.planning.amount import Amount


@pytest.mark.parametrize(
    ("words", "written", "nbytes"),
    [
        ("5 gb", "5GB", 5 * 10**9), ("1.50MiB", "1.5MiB", 3 << 19), ("007kB", "7kB", 7000), ("60 %", "60%", None),
        ("4.5BPW", "4.5bpw", None), ("0.5b", "0.5B", 0),
    ],
)  # fmt: skip
def test_it_is_read_and_written(words: str, written: str, nbytes: int | None) -> None:
    amount = Amount.parse(words)
    assert amount is not None
    assert str(amount).lower() == written.lower()
    assert amount.nbytes == nbytes
    assert Amount.parse(str(amount)) == amount


@pytest.mark.parametrize("words", ["", "5", "GB", "0GB", "-1GB", "1e3B", "5 apples", "5,5GB"])
def test_other_words_are_none(words: str) -> None:
    assert Amount.parse(words) is None
