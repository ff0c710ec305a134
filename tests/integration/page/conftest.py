"""The page built once, and a visitor with two models to choose from."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.evaluation import evaluate
from studio.evaluation.questions import Question
from studio.session.session import Session
from studio.ui.page import Page, build
from tests.conftest import save_tiny_model
from tests.page_visitor import Visitor


@pytest.fixture(scope="module")
def page() -> Page:
    async def made() -> Page:
        return build()[1]

    return asyncio.run(made())  # outside a loop Gradio opens several, and closes none


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    save_tiny_model("llama", folder / "first")
    save_tiny_model("gpt2", folder / "second")
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "WINDOWS", 2)
    monkeypatch.setattr(evaluate, "questions", lambda: (Question("The capital of France is", ("Paris", "Rome"), 0),))


@pytest.fixture
def visitor(page: Page, models: dict[str, str], tmp_path: Path) -> Iterator[Visitor]:
    """Somebody whose model is open."""
    session = Session(paths=True, workspace=tmp_path / "workspace")
    found = Visitor(page, session)
    found.do("open_model", models["first"])
    yield found
    session.close()
