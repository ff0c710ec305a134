"""What the docs show exists: commands parse, options and controls are all in the guide, links and files are there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from studio.base.text import text
from studio.cli.commands import app
from studio.planning.choice import OPTIONS
from studio.quantization.scheme import Mode
from studio.ui.controls import CONTROLLED
from tests import reference

ROOT = Path(__file__).parents[2]
DOCS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / ".github").glob("*.md"))
}
MAX_FRONT_PAGE = 120
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
FOLDERS = ("studio", "tests", "docs", "assets", ".github")
COMMANDS: Any = typer.main.get_command(app)
every_page = pytest.mark.parametrize("page", DOCS)


def code(page: str) -> str:
    """Return what stands in a page as code: blocks, and words between backticks."""
    return "\n".join(_pieces(page))


def _pieces(page: str) -> Iterator[str]:
    for block, words in re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", page, re.DOTALL):
        yield block or words


def lines_of(page: str, program: str) -> list[list[str]]:
    """Return the words after ``program`` of every line of code that calls it."""
    found = []
    for line in code(page).replace("\\\n", " ").splitlines():
        before, called, rest = line.partition(program)
        if called and not before.strip():
            found.append(shlex.split(rest, comments=True))
    return found


def parsed(words: list[str]) -> None:
    """Parse a command without running it: KeyError for none, what typer says of an option that it does not know."""
    command = COMMANDS.commands[words[0]]
    if len(words) > 1:  # else it is only named
        command.make_context(words[0], words[1:]).close()


def options() -> list[tuple[str, str]]:
    return [
        (name, option)
        for name, command in COMMANDS.commands.items()
        for each in command.params
        for option in each.opts
        if option.startswith("--") and option != "--help"
    ]


def controls() -> set[str]:
    """Return the catalogue's keys of what the page's controls are called."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "studio" / "ui").glob("*.py"))
    named = {key for source in sources for key in re.findall(r'"(?:label|value)": "([a-z_0-9.]+)"', source)}
    return named | {
        f"plan.{OPTIONS[name].key}" for name in CONTROLLED if name != "method"
    }  # which has a key of its own


@every_page
def test_a_command_that_is_shown_parses(page: str) -> None:
    for words in lines_of(DOCS[page], "python -m studio"):
        if words and not any(word.isupper() or "…" in word for word in words):
            parsed(words)


@every_page
def test_a_make_target_that_is_shown_exists(page: str) -> None:
    shown = {words[0] for words in lines_of(DOCS[page], "make ") if words}
    assert {word for word in shown if not word.endswith(("*", "=")) and "=" not in word} <= TARGETS


@every_page
def test_a_module_that_is_run_exists(page: str) -> None:
    for module in re.findall(r"python (?:-W ignore )?-m (tests[\w.]*)", DOCS[page]):
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), module


@every_page
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", DOCS[page]):
        if link.startswith(("http://", "https://")):
            continue
        path, _, part = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        if part:
            heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert part in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, link


@every_page
def test_files_that_are_named_are_there(page: str) -> None:
    for words in _pieces(DOCS[page]):
        if re.fullmatch(rf"(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]+", words):
            assert (ROOT / words).exists(), words


def row_of(command: str) -> str:
    """Return the guide's row of a command; that of the plan's options stands for them."""
    [row] = re.findall(rf"^\| `{command}`:? .*$", DOCS["docs/guide.md"], re.MULTILINE)
    _, _, below = DOCS["docs/guide.md"].partition("| the plan's options | what")
    return f"{row}{below.partition(chr(10) * 2)[0]}" if "the plan's options" in row else row


@pytest.mark.parametrize(("command", "option"), options())
def test_the_guide_has_every_option_in_its_command_s_row(command: str, option: str) -> None:
    assert f"`{option}`" in row_of(command)


@pytest.mark.parametrize("mode", Mode, ids=str)
def test_the_guide_has_every_mode(mode: Mode) -> None:
    [row] = re.findall(r"^\| Mode \| .*$", DOCS["docs/guide.md"], re.MULTILINE)
    assert f"`{mode}`" in row


@pytest.mark.parametrize("name", OPTIONS)
def test_the_library_s_page_has_every_field_of_a_choice(name: str) -> None:
    assert f"`{name}`" in DOCS["docs/library.md"]


@pytest.mark.parametrize("key", sorted(controls()))
def test_the_guide_has_every_control_of_the_page(key: str) -> None:
    assert text(key) in DOCS["docs/guide.md"]


def test_the_front_page_is_short() -> None:
    assert DOCS["README.md"].count("\n") <= MAX_FRONT_PAGE


def test_the_tables_are_those_of_what_is_registered() -> None:
    assert DOCS["docs/reference.md"] == reference.tables(), "run: make reference"


@pytest.mark.parametrize("words", ["crush builtin", "estimate builtin --mood int4_asym", "compress builtin"])
def test_a_command_that_is_none_is_found(words: str) -> None:
    [shown] = lines_of(f"```\npython -m studio {words}  # says something\n```", "python -m studio")
    with pytest.raises(Exception, match=r"crush|No such option|Missing"):
        parsed(shown)
