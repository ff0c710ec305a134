"""What a visitor's own browser is handed: the copy as ONNX, gone with the copy; or one sentence, and nothing left."""

from pathlib import Path

import pytest

from studio.base.text import text
from studio.planning.choice import Choice
from tests.page_visitor import Visitor


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return tmp_path / "uploads"


def compressed(visitor: Visitor, model: str, **words: object) -> None:
    visitor.do("open_model", model)
    visitor.session.planner.choose(Choice.of(**words))  # type: ignore[arg-type]
    visitor.compress()


def asked(visitor: Visitor) -> dict[str, str] | None:
    value: dict[str, str] | None = visitor.shown[visitor.page.export.asked]["value"]
    return value


def test_the_copy_lies_where_a_browser_fetches_it_until_it_is_gone(
    visitor: Visitor, models: dict[str, str], uploads: Path
) -> None:
    compressed(visitor, models["first"], mode="int4_asym", group_size=32)
    visitor.do("answer_in_browser", "Who is it?")
    told = asked(visitor)
    assert told is not None
    assert told["prompt"] == "Who is it?"
    folder = Path(told["folder"].removeprefix("/gradio_api/file="))
    assert folder.is_relative_to(uploads)
    assert {"config.json", "tokenizer.json", "onnx"} <= {path.name for path in folder.iterdir()}
    visitor.do("answer_in_browser", "And now?")
    again = asked(visitor)
    assert again is not None
    assert again["folder"] == told["folder"]  # written once
    visitor.session.copy.forget()
    assert not folder.exists()
    assert list(uploads.iterdir()) == []


def test_what_no_browser_loads_is_a_sentence(visitor: Visitor, models: dict[str, str], uploads: Path) -> None:
    visitor.do("open_model", models["first"])
    visitor.do("answer_in_browser", "?")
    progress = visitor.page.export.in_browser_progress
    assert text("error.nothing_compressed") in visitor.says(progress)
    assert asked(visitor) is None
    compressed(visitor, models["first"], mode="mxfp4", group_size=32)
    visitor.do("answer_in_browser", "?")
    assert "onnxruntime" in visitor.says(progress)
    assert asked(visitor) is None
    assert not uploads.exists() or list(uploads.iterdir()) == []


def test_what_builds_for_browsers_may_not_read_is_said(visitor: Visitor, models: dict[str, str], uploads: Path) -> None:
    compressed(visitor, models["first"], mode="int4_sym", group_size=32, backup="none")
    visitor.do("answer_in_browser", "?")
    assert asked(visitor) is not None
    assert "bf16" in visitor.says(visitor.page.export.in_browser_progress)
