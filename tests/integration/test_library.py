"""``import studio``: the examples of docs/library.md do what they say, in their order, and errors are sentences."""

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import studio
from studio.base.errors import ModelError, ResourceError, SchemeError
from studio.checkpoint.recipe import is_compressed, read_recipe
from studio.planning.choice import OPTIONS
from studio.session.api import Choices
from tests.conftest import ROOT

TinyModel = Callable[[str], Path]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_every_public_function_is_shown() -> None:
    shown = set(re.findall(r"studio\.(\w+)\(", "".join(EXAMPLES)))
    assert shown == set(studio.__all__) - {"__version__"}


def test_every_public_function_says_what_it_returns_and_raises() -> None:
    for name in set(studio.__all__) - {"__version__"}:
        said = getattr(studio, name).__doc__
        assert "return" in said.lower(), name
        assert "Raises" in said, name


def test_whatever_can_be_chosen_has_a_name_here() -> None:
    assert set(Choices.__annotations__) == set(OPTIONS)


def test_what_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        studio.nothing_of_the_kind  # noqa: B018
    assert set(studio.__all__) <= set(dir(studio))


def test_the_examples_run(
    tiny_model: TinyModel, own_cache: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a tiny model in the place of the built-in one."""
    environment, world = dict(os.environ), dict[str, Any]()  # the last example changes it
    for example in EXAMPLES:
        exec(example.replace('"builtin"', repr(str(tiny_model("llama")))), world)
    os.environ.clear()
    os.environ.update(environment)
    assert is_compressed(place / "small")
    assert zipfile.is_zipfile(place / "small.zip")
    assert world["done"].file.is_file()
    assert "unknown_mode" in capsys.readouterr().out
    assert {path.name for path in place.iterdir()} == {"small", "small.zip"}


def test_an_estimate_is_the_plan_that_is_carried_out(tiny_model: TinyModel, own_cache: Path, place: Path) -> None:
    model = str(tiny_model("qwen3"))
    choice: Choices = {"mode": "nf4", "group_size": 32, "ratio": 0.7}
    plan = studio.estimate(model, **choice)
    done = studio.compress(model, place / "out", **choice)
    assert plan == studio.plan(model, **choice)
    assert plan.assignments == done.plan.assignments
    assert read_recipe(place / "out").compressed_bytes == plan.compressed_bytes


def test_whatever_progress_raises_ends_the_work(tiny_model: TinyModel, own_cache: Path, place: Path) -> None:
    def enough(event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        studio.compress(str(tiny_model("llama")), place / "out", progress=enough)
    assert list(place.iterdir()) == []


def test_what_cannot_be_is_one_sentence(tiny_model: TinyModel, own_cache: Path, place: Path) -> None:
    model = str(tiny_model("llama"))
    with pytest.raises(SchemeError):
        studio.estimate(model, group_size=128)
    assert studio.estimate(model, ratio=1.0).choice.group_size == 64
    with pytest.raises(ModelError):
        studio.estimate("no model's name")
    (place / "out").mkdir()
    (place / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ResourceError):
        studio.compress(model, place / "out")
    with pytest.raises(ModelError):
        studio.export_model(place / "out", place / "out.zip")
    with pytest.raises(SchemeError, match="studio"):  # the known ones
        studio.export_model(place / "out", place / "out.zip", target="none")
    with pytest.raises(TypeError):
        studio.estimate(model, colour="red")  # type: ignore[call-arg]
