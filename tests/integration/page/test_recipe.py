"""A recipe that is given to the page: its model and plan come back, and what is no recipe is one sentence."""

import json
from pathlib import Path

import pytest

from studio.base.text import text
from studio.checkpoint.file_names import RECIPE
from studio.planning.choice import Choice
from tests.page_visitor import Visitor, choose


@pytest.fixture
def recipe(visitor: Visitor, tmp_path: Path) -> Path:
    """The recipe of a copy that the visitor made."""
    choose(visitor, Choice(group_size=32, ratio=0.5))
    visitor.compress()
    assert visitor.session.copy.folder is not None
    kept = tmp_path / "given.json"
    kept.write_bytes((visitor.session.copy.folder / RECIPE).read_bytes())
    return kept


def test_the_plan_of_a_recipe_is_open_with_its_controls(visitor: Visitor, recipe: Path) -> None:
    made = visitor.session.choice
    choose(visitor, Choice())
    visitor.do("open_recipe", str(recipe))
    assert visitor.session.choice == made
    assert visitor.shown[visitor.page.plan.controls["ratio"]]["value"] == 0.5
    assert visitor.says(visitor.page.runs.notice).count(text("runs.recipe_opened")) == 1
    assert visitor.shown[visitor.page.presets.preset]["value"] == "custom"


def test_a_text_that_the_recipe_does_not_hold_is_asked_for(visitor: Visitor, recipe: Path) -> None:
    told = json.loads(recipe.read_text())
    told["choices"]["method"] = "gptq"
    told["choices"]["calibration"] = {"text": "mine.txt", "windows": 1, "window": 256, "digest": "0" * 16}
    recipe.write_text(json.dumps(told))
    visitor.do("open_recipe", str(recipe))
    assert "mine.txt" in visitor.says(visitor.page.runs.notice)


@pytest.mark.parametrize("words", ["", "{", "[]", '{"format_version": 99}', '{"a": ' * 2000, "\x00" * 100])
def test_what_is_no_recipe_is_one_sentence_and_changes_nothing(visitor: Visitor, words: str, tmp_path: Path) -> None:
    before = visitor.session.choice
    (tmp_path / "mine.json").write_text(words)
    visitor.do("open_recipe", str(tmp_path / "mine.json"))
    said = visitor.says(visitor.page.runs.notice)
    assert "alert" in said
    assert text("error.unexpected") not in said
    assert visitor.session.choice == before


def test_a_box_that_is_emptied_says_nothing(visitor: Visitor) -> None:
    visitor.do("open_recipe", None)
    assert "value" not in visitor.shown.get(visitor.page.runs.notice, {})
