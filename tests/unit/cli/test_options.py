"""The terminal has an option for all that can be chosen, called as it always was."""

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from studio.base.errors import SchemeError
from studio.base.text import LANGUAGES, catalogue
from studio.cli.commands import app
from studio.cli.options import Chosen, chosen, with_choice
from studio.planning.choice import OPTIONS, Choice, Pin

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
PLANNING = (
    (["--mode"], "int4_asym"),
    (["--group-size"], None),
    (["--ratio"], 1.0),
    (["--backup"], None),
    (["--misfit", "--group-size-fallback"], "error"),
    (["--all-layers"], False),
    (["--sensitivity"], None),
    (["--pin"], None),
    (["--ignore"], None),
)
PROMISED: dict[str, tuple[tuple[list[str], Any], ...]] = {
    "estimate": (*PLANNING, (["--json"], False)),
    "compress": (
        (["--out"], None), *PLANNING, (["--method"], "nearest"), (["--calibrate"], "builtin"), (["--json"], False),
    ),
}  # fmt: skip
"""Names and defaults that scripts rely on, in the order of the help."""


def parameters(command: str) -> list[Any]:
    found: list[Any] = COMMANDS[command].params
    return found


@pytest.mark.parametrize("command", PROMISED)
def test_names_defaults_and_order_are_as_promised(command: str) -> None:
    names = [flags for flags, _ in PROMISED[command]]
    found = [(each.opts, each.default) for each in parameters(command) if each.opts in names]
    assert found == list(PROMISED[command])


@pytest.mark.parametrize("command", PROMISED)
def test_there_is_an_option_for_all_that_can_be_chosen(command: str) -> None:
    offered = [each.name for each in parameters(command) if each.name in OPTIONS]
    assert offered == [name for name in OPTIONS if (command, name) != ("estimate", "method")]


def test_the_report_calls_what_was_chosen_as_it_always_did() -> None:
    promised = ["mode", "group_size", "ratio", "backup", "misfit", "all_layers", "sensitivity", "pins", "method"]
    assert [option.key for option in OPTIONS.values() if option.key in promised] == promised


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", OPTIONS)
def test_what_can_be_chosen_has_its_texts(name: str, language: str) -> None:
    option, texts = OPTIONS[name], catalogue(language)
    assert f"terminal.help_{option.key}" in texts
    if not option.is_repeated and name != "method":  # which the page has texts of its own for
        assert {f"plan.{option.key}", f"plan.{option.key}_info"} <= texts.keys()


def values(*arguments: str) -> dict[str, Any]:
    """Return what the terminal reads."""
    read: dict[str, Any] = COMMANDS["compress"].make_context("compress", ["m", "--out", "d", *arguments]).params
    return read


def test_nothing_said_is_the_default_and_leaves_the_group_size_open() -> None:
    said = chosen(values())
    assert Choice.of(**said) == Choice()
    assert said.keys().isdisjoint({"group_size", "backup", "sensitivity"})


@pytest.mark.parametrize("flag", ["--misfit", "--group-size-fallback"])
def test_the_fallback_has_two_names(flag: str) -> None:
    assert Choice.of(**chosen(values(flag, "adjust"))).group_size_fallback == "adjust"


def test_ignored_layers_are_pins_after_the_others() -> None:
    said = chosen(values("--ignore", "a", "--pin", "b=nf4-g64", "--ignore", "c"))
    assert [str(pin) for pin in Choice.of(**said).pins] == ["b=nf4-g64", "a=none", "c=none"]
    assert Choice.of(**said).pins[1] == Pin("a", None)


def test_a_word_that_is_none_is_left_to_the_choice_to_refuse() -> None:
    with pytest.raises(SchemeError):
        Choice.of(**chosen(values("--sensitivity", "luck")))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), {}),
        (("--mode", "int4_asym", "--method", "nearest"), {"mode": "int4_asym", "method": "nearest"}),
        (("--all-layers",), {"all_layers": True}),
        (("--ignore", "a"), {"pins": ["a=none"]}),
    ],
    ids=["nothing", "defaults", "a box", "a pattern"],
)
def test_a_command_is_told_what_was_said_and_no_default(words: tuple[str, ...], said: dict[str, Any]) -> None:
    program, heard = typer.Typer(), list[Chosen]()

    @program.command()
    @with_choice()
    def command(chosen: Chosen) -> None:
        heard.append(chosen)

    assert CliRunner().invoke(program, words).exit_code == 0
    assert heard == [said]
