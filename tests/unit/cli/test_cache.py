"""``cache`` lists, removes by name, kind and size, and says what it did not do."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from studio.base import leases
from studio.cli.commands import app


class Holder:
    pass


@pytest.fixture(autouse=True)
def filled(empty_cache: Path) -> Path:
    for age, name in enumerate(("first", "second", "third")):
        folder = empty_cache / "prepared" / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(1000))
        os.utime(folder / "model.safetensors", (1e9 + age, 1e9 + age))
    (empty_cache / "survey").mkdir()
    (empty_cache / "survey" / "a.json").write_text("{}")
    return empty_cache


def run(*arguments: str) -> tuple[int, dict[str, object], str]:
    done = CliRunner().invoke(app, ["cache", "--json", *arguments])
    return done.exit_code, json.loads(done.stdout), done.stderr


def names(said: object) -> list[str]:
    assert isinstance(said, list)
    return [entry["name"] for entry in said]


def test_it_lists_kinds_sizes_and_last_use(filled: Path) -> None:
    code, said, _ = run()
    assert code == 0
    assert {"kind": "prepared", "name": "third", "bytes": 1000, "used": 10**9 + 2} in said["entries"]  # type: ignore[operator]
    assert names(said["entries"]) == ["first", "second", "third", "surveys"]
    assert said["bytes"] == 3002
    shown = CliRunner().invoke(app, ["cache"]).stdout
    assert "prepared: third" in shown
    assert "surveys" in shown


@pytest.mark.parametrize(
    ("arguments", "stay"),
    [
        (("--remove", "second"), ["first", "third", "surveys"]),
        (("--remove", "prepared"), ["surveys"]),
        (("--remove", "surveys", "--remove", "first"), ["second", "third"]),
        (("--remove", "all"), []),
        (("--keep", "2kB"), ["second", "third", "surveys"]),
        (("--keep", "0"), ["surveys"]),
    ],
    ids=" ".join,
)
def test_it_removes(arguments: tuple[str, ...], stay: list[str]) -> None:
    code, said, _ = run(*arguments)
    assert code == 0
    assert names(said["entries"]) == stay
    assert len(names(said["removed"])) == 4 - len(stay)


def test_what_is_in_use_stays_and_is_named(filled: Path) -> None:
    holder = Holder()
    leases.hold(filled / "prepared" / "first", holder)
    code, said, notes = run("--remove", "all")
    assert code == 0
    assert names(said["entries"]) == said["in_use"] == ["first"]
    assert "first is in use" in notes


@pytest.mark.parametrize(
    ("arguments", "key"),
    [(("--remove", "../prepared"), "cache_unknown"), (("--keep", "much"), "cache_bad_size")],
)
def test_what_is_not_there_is_a_sentence(arguments: tuple[str, ...], key: str) -> None:
    code, said, _ = run(*arguments)
    assert code == 2
    assert said["error"]["key"] == key  # type: ignore[index]
    assert len(names(run()[1]["entries"])) == 4
