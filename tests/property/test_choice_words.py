"""A choice survives being said: in words, in a report, in a recipe, and in the command that makes a copy again."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from studio.base.errors import SchemeError
from studio.calibration.texts import Text
from studio.checkpoint.recipe import Choices
from studio.cli.commands import app
from studio.cli.options import chosen
from studio.compression.compress import Compressed
from studio.planning.choice import MAX_PATTERN, MAX_PINS, MIN_RATIO, OPTIONS, Choice, Pin
from studio.planning.mixes import MIXES
from studio.planning.plan import Assignment, Plan, make_plan
from studio.quantization.methods import Method
from studio.quantization.scheme import GROUP_SIZES, Mode, Scheme
from studio.session.session import Session
from studio.ui.present import command
from tests.conftest import save_tiny_model
from tests.steps import finish
from tests.unit.planning.test_choice import all_scores
from tests.unit.planning.test_plan import a_model

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
LAYERS = a_model()
SCORES = all_scores(LAYERS)
SCHEMES = sorted({str(Scheme.of(mode, size)) for mode in Mode for size in (*GROUP_SIZES, 192)})
PATTERNS = st.text(min_size=1, max_size=MAX_PATTERN).filter(str.strip)
PINS = st.builds("{}={}".format, PATTERNS, st.sampled_from([*SCHEMES, "none"]))
OWN: dict[str, st.SearchStrategy[Any]] = {
    "group_size": st.sampled_from(GROUP_SIZES),
    "ratio": st.one_of(st.sampled_from([MIN_RATIO, 0.3, 0.8, 1.0]), st.floats(MIN_RATIO, 1)),
    "pins": st.lists(PINS, max_size=MAX_PINS),
    "budget": st.sampled_from(["none", *MIXES, "5GB", "0.25GiB", "60%", "4.5bpw", "123456B"]),
}
"""The words of those fields that are neither a yes nor one of a few."""


def words_of(name: str) -> st.SearchStrategy[Any]:
    """Return any word of a field."""
    option = OPTIONS[name]
    return OWN[name] if name in OWN else st.sampled_from(option.among) if option.among else st.booleans()


def said(words: dict[str, Any]) -> Choice:
    """Return the choice of words, but for those that a budget does not allow beside it."""
    is_budget = words.get("budget", "none") != "none"
    return Choice.of(**{name: word for name, word in words.items() if not (is_budget and name in ("ratio", "mix"))})


CHOICES = st.fixed_dictionaries({}, optional={name: words_of(name) for name in OPTIONS}).map(said)


@given(CHOICES)
@example(Choice(ratio=0.5, sensitivity="damage"))
@example(Choice(sensitivity="damage"))
@example(Choice(pins=(Pin(" x ", None), Pin("a=b", Scheme(Mode.NF4, 192)))))
def test_words_make_the_choice_that_they_were_written_for(choice: Choice) -> None:
    words = choice.words()
    assert Choice.of(**words) == choice
    assert json.loads(json.dumps(words)) == words
    assert words.keys() == OPTIONS.keys()


@given(CHOICES)
def test_a_recipe_holds_every_word_and_nothing_else_of_a_choice(choice: Choice) -> None:
    """It may not know the choice, which is made above it, so that its keys are a list of their own."""
    recipe = Choices.model_validate({**choice.facts(), "calibration": "mine.txt"})
    written = json.loads(recipe.model_dump_json())
    assert {**written, "calibration": written["calibration"]["text"]} == {**choice.facts(), "calibration": "mine.txt"}
    assert written.keys() == {*OPTIONS, "calibration"}


@pytest.mark.parametrize(
    "said",
    [
        {"mode": "nf4", "group_size": 64, "ratio": 0.8, "backup": "none"},
        {"mode": "nf4", "group_size": 64, "ratio": 0.8, "backup": "none", "misfit": "adjust", "all_layers": True},
        {"mode": "nf4", "group_size": 64, "ratio": 0.8, "backup": "none", "misfit": "adjust", "pins": ["a=none"]},
        {"mode": "nf4", "group_size": 64, "ratio": 0.8, "backup": "none", "group_size_fallback": "adjust"},
    ],
    ids=["first", "all-layers", "pins", "now"],
)
def test_choices_of_a_recipe_of_before_are_read(said: dict[str, Any]) -> None:
    read = Choices.model_validate(said)
    expected = {("group_size_fallback" if key == "misfit" else key): word for key, word in said.items()}
    words = read.model_dump(mode="json", exclude={"calibration"})
    assert {name: words[name] for name in expected} == expected
    assert Choice.of(**words).words() == words


# the command that the page shows


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("models") / "a model"
    save_tiny_model("llama", folder)
    found = Session(paths=True, workspace=folder.parent)
    finish(found.open(str(folder)))
    return found


def heard(line: str) -> tuple[str, dict[str, Any]]:
    """Return the model and the options that the terminal reads of a command."""
    python, m, studio, name, *arguments = shlex.split(line)
    assert (python, m, studio, name) == ("python", "-m", "studio", "compress")
    values = COMMANDS[name].make_context(name, arguments).params
    return values["model"], values


def outcome(choice: Choice) -> tuple[Assignment, ...] | str:
    """Return what a plan gives every layer, or why there is none."""
    try:
        return make_plan(LAYERS, choice, SCORES).assignments
    except SchemeError as error:
        return error.sentence()


@settings(deadline=None)
@given(CHOICES)
@example(Choice(Mode.MXFP4, 32, 1.0, Mode.FP8_E4M3))  # the group size is the backup's alone
@example(Choice(Mode.INT8_SYM, 32, 0.5, None))
@example(Choice(ratio=0.1 + 0.2, pins=(Pin("-x", None), Pin("'", None))))
@example(Choice(ratio=0.5, method=Method.GPTQ))  # where it is left open, damage decides
def test_the_command_on_the_page_makes_the_same_choice(session: Session, choice: Choice) -> None:
    session.copy.compressed = Compressed(Plan(choice, (), True), Path("packed"), {}, 1.0)
    model, values = heard(command(session))
    assert session.checkpoint is not None
    assert model == session.checkpoint.name
    again = Choice.of(**chosen(values))
    assert outcome(again) == outcome(choice)
    counts = {name for name, option in OPTIONS.items() if option.applies is None or option.applies(choice)}
    assert {name: again.words()[name] for name in counts} == {name: choice.words()[name] for name in counts}


def test_the_command_names_the_text_that_was_read(session: Session) -> None:
    choice = Choice(method=Method.GPTQ, pins=(Pin("*.q_proj", None),))
    session.copy.compressed = Compressed(Plan(choice, (), True), Path("packed"), {}, 1.0)
    session.copy.calibrated_on = Text("my text.txt", Path("my text.txt"))
    options = "--mode int4_asym --group-size 64 --ratio 1 --backup int8_asym --method gptq --calibrate 'my text.txt'"
    assert f"{options} --pin '*.q_proj=none' --out DIR" in command(session)
