"""Where weights are worked on: what the setting names, and more at once where a piece costs launches."""

from collections.abc import Iterator

import pytest
import torch

from studio.base import device as module
from studio.base.settings import settings


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    module.device.cache_clear()
    yield
    module.device.cache_clear()


def test_the_setting_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "device", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert module.device() == torch.device("cpu")


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_by_default_a_gpu_is_taken_where_there_is_one(
    there: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "device", "auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert module.device().type == expected


@pytest.mark.parametrize(("kind", "times"), [("cpu", 1), ("cuda", 16)])
def test_pieces_are_larger_on_a_gpu(kind: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "device", kind)
    assert module.chunk_weights(1000) == times * 1000


def test_a_weight_that_is_there_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "device", "cpu")
    weight = torch.ones(2, 3, dtype=torch.float32)
    assert module.moved(weight) is weight
