"""``verify`` with a real llama.cpp: a right file passes; one that llama.cpp reads as another model does not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from studio.cli.commands import app
from studio.export.gguf import llama_cpp, verify
from studio.export.gguf.llama_cpp import PATIENCE, LlamaCpp, Question, Reply
from tests.engines.models import save, written


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("verify")
    return written(save("llama-llama3", place / "source"), place / "packed", mode="q8_0")


def verified(file: Path) -> Any:
    result = CliRunner().invoke(app, ["verify", str(file), "--against", str(file.with_suffix("")), "--json"])
    return json.loads(result.stdout)


def test_a_right_file_passes_there_too(engine: LlamaCpp, file: Path, own_cache: Path) -> None:
    facts = verified(file)
    assert facts["llama_cpp"]["same_tokens"]
    assert 0 < facts["llama_cpp"]["kld"]["mean"] < 2e-3
    assert facts["llama_cpp"]["kld"]["mean"] <= facts["llama_cpp"]["kld"]["max"]
    assert 0 < facts["llama_cpp"]["logit_difference"] < 1
    assert facts["answer"]


def test_a_file_that_is_another_model_there_fails(
    engine: LlamaCpp, file: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one would be whose rotation llama.cpp passed by: here it is shown one that has none of Llama 3's."""
    other = written(save("llama-llama3", tmp_path / "s", rope_parameters=None), tmp_path / "other", mode="q8_0")

    class Elsewhere(LlamaCpp):
        def ask(self, *questions: Question, patience: float = PATIENCE) -> list[Reply]:
            return super().ask(*(replace(each, file=other) for each in questions), patience=patience)

    monkeypatch.setattr(llama_cpp, "found", lambda: Elsewhere(engine.node, engine.modules))
    error = verified(file)["error"]
    assert error["key"] == "verify_engine"
    assert "packed.gguf" in error["message"]


def test_a_text_is_no_longer_than_the_window_that_a_file_names(engine: LlamaCpp, tmp_path: Path) -> None:
    facts = verified(written(save("mistral", tmp_path / "source"), tmp_path / "packed", mode="q8_0"))
    assert facts["tokens"] == 48
    assert facts["llama_cpp"]["kld"]["mean"] < 2e-3
    assert facts["reader"]["kld"]["mean"] < 2e-3


def test_an_engine_that_hangs_ends_in_a_sentence(
    engine: LlamaCpp, file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "PATIENCE", 0.01)
    assert verified(file)["error"]["key"] == "llama_cpp_slow"
