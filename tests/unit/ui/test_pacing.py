"""A page is told the first, the newest now and then, and the last; nothing twice."""

from collections.abc import Iterator

import pytest

from studio.ui import pacing


@pytest.fixture
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the pace goes by with every look."""
    times = (number * pacing.PACE / 10 for number in range(10_000))
    monkeypatch.setattr(pacing.time, "monotonic", lambda: next(times))  # type: ignore[attr-defined]


@pytest.mark.usefixtures("_clock")
@pytest.mark.parametrize("count", [0, 1, 2, 5, 100])
def test_the_first_and_the_last_are_always_told_and_nothing_twice(count: int) -> None:
    told = list(pacing.paced(range(count)))
    assert told == sorted(set(told))
    assert not count or (told[0], told[-1]) == (0, count - 1)


@pytest.mark.usefixtures("_clock")
def test_between_them_few_are_told() -> None:
    assert 5 < len(list(pacing.paced(range(100)))) < 20


def test_closing_it_closes_what_it_paces() -> None:
    ended: list[str] = []

    def steps() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            ended.append("ended")

    paced = pacing.paced(steps())
    next(iter(paced))
    del paced
    assert ended == ["ended"]
