"""The house that the settings describe."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from studio.base.settings import settings
from studio.ui.door.house import health, house_of

CALLS: Any = SimpleNamespace()


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SPACE_HOST", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_by_itself_a_page_is_this_machines_alone() -> None:
    house = house_of(CALLS, print)
    assert house.names.is_known("127.0.0.1")
    assert not house.names.is_known("studio.example.org")
    assert (house.access, house.has_proxy, house.framed_by) == ("auto", False, ())


def test_a_stranger_makes_the_page_public_for_good() -> None:
    assert settings().is_private
    house_of(CALLS, print).on_stranger()
    assert not settings().is_private


def test_a_space_is_known_by_its_name_and_shown_by_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_HOST", "owner-studio.hf.space")
    house = house_of(CALLS, print)
    assert house.names.is_known("owner-studio.hf.space")
    assert house.has_proxy
    assert house.framed_by == ("https://huggingface.co",)


def test_the_owner_names_hosts_and_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_ALLOWED_HOSTS", "studio.example.org, *.example.net")
    monkeypatch.setenv("STUDIO_PROXY", "1")
    house = house_of(CALLS, print)
    assert house.names.is_known("studio.example.org")
    assert house.names.is_known("a.example.net")
    assert house.has_proxy
    assert house.access == "public"  # not everything that comes through a proxy says so


def test_health_says_nothing_of_the_machine() -> None:
    assert set(health()) == {"status", "version", "workers"}
