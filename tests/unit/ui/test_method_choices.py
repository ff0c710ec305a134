"""What the page says of methods: which text they read, and which layers that text did not reach."""

from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from studio.base.text import LANGUAGES, text
from studio.calibration.texts import GENERATED, Text
from studio.compression.compress import Compressed
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.methods import Method
from studio.quantization.scheme import Mode
from studio.session.session import Session
from studio.ui.method_choices import FEW, method_info, uncalibrated
from tests.unit.planning.test_plan import a_model

CHOICE = Choice(Mode.INT4_ASYM, 64, method=Method.GPTQ)
DONE = Compressed(make_plan(a_model(), CHOICE), Path("packed"), {}, 1.0)


def session(**found: tuple[str, ...]) -> Session:
    visitor = Session(choice=CHOICE)
    visitor.copy.compressed = replace(DONE, **found)  # type: ignore[arg-type]
    return visitor


@pytest.mark.parametrize("language", LANGUAGES)
def test_layers_that_were_given_nothing_are_named(language: str) -> None:
    names = ("blocks.0.<b>experts.7</b>.weight", "blocks.1.down.weight")
    said = uncalibrated(session(unreached=names), language)
    assert escape(text("method.unreached", language, count=2)) in said
    assert all(escape(name) in said for name in names)
    assert "<b>" not in said
    assert '<details class="hint" open>' in said


def test_many_names_are_there_for_the_asking() -> None:
    names = tuple(f"expert.{i}" for i in range(FEW + 1))
    said = uncalibrated(session(unreached=names), "en")
    assert all(f"<code>{name}</code>" in said for name in names)
    assert " open" not in said


def test_experts_in_one_tensor_are_another_matter() -> None:
    said = uncalibrated(session(stacks=("experts.up", "experts.down")), "en")
    assert escape(text("method.stacks", count=2)) in said
    assert escape(text("method.unreached", count=2)) not in said


def test_nothing_is_said_where_nothing_was_missed() -> None:
    assert uncalibrated(session(), "en") == ""
    assert uncalibrated(Session(), "en") == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_text_that_is_read_is_named(language: str) -> None:
    visitor = session()
    for chosen, name in (
        (None, text("method.builtin_text", language)),
        (GENERATED, text("method.generated_text", language)),
        (Text("hf://datasets/o/n/a.txt", Path("x")), "hf://datasets/o/n/a.txt"),
    ):
        visitor.texts.calibration = chosen
        assert text("method.reads", language, text=name) in method_info(visitor, language)
