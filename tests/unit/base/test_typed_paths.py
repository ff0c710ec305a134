"""Paths as people type them: whatever was typed, looking for it raises nothing."""

from pathlib import Path

import pytest

from studio.base.typed_paths import is_there, typed_path


def test_a_tilde_is_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert typed_path("~/model") == Path("/somewhere/model")


@pytest.mark.parametrize(
    "name", ["~nobody-of-this-name/x", "a\0b", "a" * 100_000, ""], ids=["user", "nul", "long", "no"]
)
def test_what_is_no_path_is_not_there(name: str) -> None:
    assert is_there(typed_path(name)) is (name == "")  # an empty one is the folder one is in


def test_what_is_there_is_found(tmp_path: Path) -> None:
    assert is_there(tmp_path)
    assert not is_there(tmp_path / "nothing")
