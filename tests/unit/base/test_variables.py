"""What the environment may set: names, limits, and what makes a page one's own."""

import pytest
from pydantic import ValidationError

from studio.base.variables import Settings


@pytest.mark.parametrize(
    ("host", "is_private"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("127.0.0.1.example.org", False)],
)
def test_only_loopback_is_private(host: str, is_private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOST", host)
    assert Settings().is_private is is_private


def test_a_space_names_host_and_port_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7861")
    assert (Settings().host, Settings().port) == ("0.0.0.0", 7861)
    monkeypatch.setenv("STUDIO_HOST", "localhost")
    monkeypatch.setenv("PORT", "80")
    assert (Settings().host, Settings().port) == ("localhost", 80)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "65536"), ("PORT", "-1"), ("PORT", "http"), ("STUDIO_DEVICE", "tpu"), ("STUDIO_MODEL_MEMORY", "-1")],
)
def test_a_value_that_cannot_be_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_what_others_set_is_no_concern_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_UNKNOWN", "1")
    assert "unknown" not in Settings().model_dump()


@pytest.mark.parametrize(
    ("access", "host", "is_private"), [("private", "0.0.0.0", True), ("public", "127.0.0.1", False)]
)
def test_whose_page_it_is_can_be_said(
    access: str, host: str, is_private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_ACCESS", access)
    monkeypatch.setenv("STUDIO_HOST", host)
    found = Settings()
    found.admit_strangers()
    assert found.is_private is is_private


@pytest.mark.parametrize("name", ["STUDIO_PROXY", "STUDIO_ALLOWED_HOSTS", "SPACE_HOST"])
def test_a_page_that_has_a_proxy_or_other_names_is_for_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert not Settings().is_private
    monkeypatch.setenv("STUDIO_ACCESS", "private")
    assert Settings().is_private


def test_a_stranger_makes_a_page_public() -> None:
    found = Settings()
    found.admit_strangers()
    assert not found.is_private
