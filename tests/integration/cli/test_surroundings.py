"""The terminal in surroundings that are not as they should be: bugs, caches, settings, languages."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.base.settings import settings
from studio.base.text import text
from studio.cli.terminal import language
from studio.session import estimate as estimating
from tests.terminal import TinyModel, assert_refused, run


@pytest.fixture
def fresh_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Settings read anew, with a cache of their own."""
    monkeypatch.setenv("STUDIO_CACHE_DIR", str(tmp_path / "cache"))
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("fresh_settings")
def test_a_bug_is_one_sentence_with_the_place_of_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the reason")

    monkeypatch.setattr(estimating, "open_model", fail)
    answer = run("estimate", "builtin", "--json")
    assert answer.code == 1
    assert answer.json["error"]["key"] == "unexpected"
    [log] = (tmp_path / "cache" / "logs").iterdir()
    assert answer.stderr == answer.json["error"]["message"] + "\n"
    assert str(log) in answer.stderr
    assert "RuntimeError: the reason" in log.read_text()


def test_an_estimate_does_without_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, fresh_settings: None, tiny_model: TinyModel, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    answer = run("estimate", tiny_model("llama"), "--ratio", "0.5", "--json")
    assert (answer.code, answer.json["exact"]) == (0, True)
    assert (tmp_path / "cache").read_text() == "a file"


@pytest.mark.usefixtures("fresh_settings")
def test_a_setting_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "seven")
    answer = run("estimate", "builtin", "--json")
    assert_refused(answer, "bad_setting")
    assert "PORT" in answer.stderr


@pytest.mark.parametrize(
    ("locale", "tag"),
    [
        ("zh_CN.UTF-8", "zh-Hans"),
        ("zh_TW.UTF-8", "zh-Hant"),
        ("zh_HK", "zh-Hant"),
        ("en_GB.UTF-8", "en"),
        ("de_DE.UTF-8", "en"),
        ("C", "en"),
        ("", "en"),
    ],
)
def test_the_locale_is_the_language(monkeypatch: pytest.MonkeyPatch, locale: str, tag: str) -> None:
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.setenv("LC_ALL", "")
    monkeypatch.setenv("LANG", locale)
    assert language() == tag


def test_the_reader_s_language_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    answer = run("estimate", "builtin", "--ratio", "0", "--json")
    assert_refused(answer, "ratio_range")
    assert answer.json["error"]["message"] == text("error.ratio_range", "zh-Hans", ratio=0.0, low=0.05)
