"""Whatever becomes of the engine's process, whoever asked is told in a sentence, and within the time that it had."""

import os
import time
from pathlib import Path

import pytest

from studio.base.errors import ProcessError
from studio.base.settings import settings
from studio.export.gguf.llama_cpp import LlamaCpp, Question, found

LIMIT = 1.0
"""Seconds that it has."""


def program(folder: Path, script: str) -> LlamaCpp:
    """Return an engine whose node is a script of the shell; its third argument is the request."""
    file = folder / "node"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return LlamaCpp(str(file), folder)


def asked(engine: LlamaCpp, limit: float = 60) -> str:
    with pytest.raises(ProcessError) as caught:
        engine.ask(Question(Path("model.gguf"), [1, 2]), patience=limit)
    assert "model.gguf" in str(caught.value)
    return caught.value.key


def test_one_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "child"
    begun = time.monotonic()
    assert asked(program(tmp_path, f"sleep 600 & echo $! > {note}; wait"), LIMIT) == "llama_cpp_slow"
    assert time.monotonic() - begun < 300  # on a busy machine, and far from 600
    child = int(note.read_text())
    for _ in range(600):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    os.kill(child, 9)
    pytest.fail("it went on")


@pytest.mark.parametrize(
    "script",
    [
        "kill -9 $$",
        "exit 1",
        "exit 0",
        'echo "{" > "$(dirname "$2")/result.json"',
        'printf "\\377" > "$(dirname "$2")/result.json"',
    ],
    ids=["killed", "failed", "without a word", "half a word", "no text"],
)
def test_one_that_ends_without_an_answer_is_said_to_have_ended(script: str, tmp_path: Path) -> None:
    assert asked(program(tmp_path, script)) == "llama_cpp_ended"


def test_what_it_says_of_a_file_is_passed_on(tmp_path: Path) -> None:
    engine = program(tmp_path, """echo '[{"error": "bad magic"}]' > "$(dirname "$2")/result.json" """)
    assert asked(engine) == "llama_cpp_refused"


def test_one_that_is_not_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_NODE_LLAMA", str(tmp_path))
    settings.cache_clear()
    assert found() is None  # no package
    (tmp_path / "node_modules" / "node-llama-cpp").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found() is None  # no node
    program(tmp_path, "exit 0")
    there = found()
    assert there is not None
    assert there.modules == tmp_path / "node_modules"
    settings.cache_clear()
