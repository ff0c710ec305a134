"""Programs that people run models with: their words, their commands, and targets that none of them loads."""

import dataclasses

import pytest

from studio.base.text import LANGUAGES, catalogue
from studio.export import runners
from studio.export.runners import DEFAULT, PROGRAMS
from studio.export.targets import TARGETS


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_catalogues_hold_the_programs_and_no_other(language: str) -> None:
    there = {key for key in catalogue(language) if key.startswith("program.")}
    assert there == {f"program.{name}.{key}" for name in PROGRAMS for key in ("title", "becomes")}
    for program in runners.known().values():
        assert {program.title_key, program.becomes_key} <= catalogue(language).keys()


def test_a_command_names_the_file_safely() -> None:
    assert PROGRAMS["ollama"].commands("a b.gguf", "A b") == (
        "echo FROM ./'a b.gguf' > Modelfile\nollama create 'a b' -f Modelfile\nollama run 'a b'"
    )
    for program in PROGRAMS.values():
        assert ("m.gguf" in program.commands("m.gguf", "m")) == bool(program.command)


def test_the_default_loads_a_file_of_one_piece() -> None:
    target = PROGRAMS[DEFAULT].form
    assert target is not None
    assert target.suffix == ".gguf"
    assert all(program.form is not None for program in PROGRAMS.values())


def test_a_target_without_a_program_is_offered_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(TARGETS["studio"], name="other")
    monkeypatch.setitem(TARGETS, "other", other)
    found = runners.known()["other"]
    assert found.form is other
    assert (found.title_key, found.becomes_key) == ("target.other.title", "target.other.loads")
