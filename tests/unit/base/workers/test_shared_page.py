"""The page that workers share: made ready once, by the first who asks, and none where nobody made one."""

import mmap
import os
from collections.abc import Iterator

import pytest

from studio.base.workers import shared_page as module


@pytest.fixture
def _made(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    descriptors: list[int] = []
    monkeypatch.setattr(module, "_DESCRIPTORS", descriptors)
    module.create()
    yield
    os.close(descriptors.pop())


@pytest.mark.usefixtures("_made")
def test_the_first_who_asks_makes_it_ready_and_all_see_the_same() -> None:
    asked: list[str] = []

    def ready(page: mmap.mmap) -> bool:
        asked.append("made")
        page[0] = 42
        return True

    first, second = (module.shared_page(ready, 8) for _ in range(2))
    assert first is not None
    assert second is not None
    assert asked == ["made"]
    assert second[0] == 42
    first[1] = 7
    assert second[1] == 7


@pytest.mark.usefixtures("_made")
def test_one_that_cannot_be_made_ready_is_none_and_may_be_tried_again() -> None:
    assert module.shared_page(lambda _: False, 8) is None
    assert module.shared_page(lambda _: True, 8) is not None


def test_without_one_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DESCRIPTORS", [])
    assert module.shared_page(lambda _: True, 8) is None


def test_more_than_a_page_is_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        module.shared_page(lambda _: True, mmap.PAGESIZE)
