"""``python -m studio chat``: the original and the compressed model answer on stdout."""

from pathlib import Path

import pytest

from studio.checkpoint.checkpoint import Checkpoint
from tests.terminal import QUESTION, TinyModel, run


@pytest.fixture(scope="module")
def int8(builtin: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model at int8_asym, as compress leaves it."""
    out = tmp_path_factory.mktemp("compressed") / "int8"
    assert run("compress", "builtin", "--mode", "int8_asym", "--out", out).code == 0
    return out


@pytest.mark.real
def test_the_original_answers(builtin: Checkpoint) -> None:
    facts = run("chat", "builtin", "--prompt", QUESTION, "--json").json
    assert "Paris" in facts["text"]
    assert facts["model"] == "builtin"
    assert facts["prompt_tokens"] > len(QUESTION.split())
    assert 1 < facts["tokens"] <= 64
    assert facts["tokens_per_second"] > 0
    assert facts["time_to_first_token"] > 0
    assert 269_030_016 <= facts["weight_bytes"] < 269_200_000  # norms are fp32 here


@pytest.mark.real
def test_the_compressed_model_answers_on_its_packed_weights(int8: Path) -> None:
    first, second = (run("chat", int8, "--prompt", QUESTION, "--json").json for _ in range(2))
    assert "Paris" in first["text"]
    assert first["model"] == str(int8)
    assert first["weight_bytes"] < 1.1 * 135_164_160
    assert (first["text"], first["tokens"]) == (second["text"], second["tokens"])


def test_an_answer_to_read_is_alone_on_stdout(tiny_model: TinyModel) -> None:
    arguments = ("chat", tiny_model("llama"), "--prompt", "Count from one", "--max-new-tokens", "9")
    facts = run(*arguments, "--json").json
    answer = run(*arguments)
    assert answer.stdout == facts["text"] + "\n"
    assert f"{facts['tokens']} tokens" in answer.stderr


def test_an_answer_is_no_longer_than_asked(tiny_model: TinyModel) -> None:
    facts = run("chat", tiny_model("gpt2"), "--prompt", "Count", "--max-new-tokens", "3", "--json").json
    assert facts["tokens"] <= 3


def test_a_seed_repeats_a_sampled_answer(tiny_model: TinyModel) -> None:
    def ask(seed: int) -> str:
        arguments = ("--prompt", "Count", "--temperature", "1.5", "--seed", seed, "--max-new-tokens", "20", "--json")
        answer: str = run("chat", tiny_model("llama"), *arguments).json["text"]
        return answer

    assert ask(1) == ask(1) != ask(2)


def test_a_system_prompt_is_part_of_the_prompt(tiny_model: TinyModel) -> None:
    arguments = ("chat", tiny_model("llama"), "--prompt", "Count", "--max-new-tokens", "1", "--json")
    assert run(*arguments, "--system", "Be kind.").json["prompt_tokens"] > run(*arguments).json["prompt_tokens"]
