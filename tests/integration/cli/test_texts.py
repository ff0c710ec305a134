"""What the terminal says of texts: an evaluation's fields, each way to calibrate, and bad input, one sentence each."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from safetensors.torch import load_file, save_file

from studio.base.text import text
from studio.calibration import self_generated
from studio.checkpoint.recipe import read_recipe
from studio.evaluation import evaluate
from studio.evaluation.questions import Question
from tests.conftest import SENTENCES
from tests.hub_server import LocalHub
from tests.terminal import assert_refused, run

pytestmark = pytest.mark.usefixtures("own_cache", "_few")
TinyModel = Callable[[str], Path]
LONG = " ".join(SENTENCES * 60)


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch, here: None) -> None:
    monkeypatch.setattr(evaluate, "WINDOWS", 4)
    monkeypatch.setattr(self_generated, "WINDOWS", 2)
    monkeypatch.setattr(evaluate, "questions", lambda: (Question("The capital of France is", ("Paris", "Rome"), 0),))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text(json.dumps({"text": LONG}))
    with LocalHub() as server:
        server.add("datasets/owner/stories", tmp_path / "data")
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
    huggingface_hub.close_session()


def calibrated(model: Path, out: Path, *options: object) -> list[object]:
    return ["compress", model, "--group-size", 32, "--method", "least_squares", "--out", out, *options]


def test_an_evaluation_has_every_field(tiny_model: TinyModel, tmp_path: Path) -> None:
    run("compress", tiny_model("llama"), "--group-size", 32, "--out", tmp_path / "small")
    facts = run("evaluate", tmp_path / "small", "--against", tiny_model("llama"), "--json").json
    assert facts["kld"].keys() == {"mean", "standard_error", "median", "p99"}
    assert 0 < facts["kld"]["median"] < facts["kld"]["p99"]
    for name in ("perplexity", "original_perplexity", "same_top"):
        assert facts[name].keys() == {"mean", "standard_error"}
        assert facts[name]["standard_error"] > 0
    assert facts["tokens"] == 4 * 256
    assert facts["flips"].keys() == {"questions", "flipped", "right", "original_right"}
    assert facts["flips"]["questions"] == 1
    assert facts["floor"]["kld"]["mean"] > 0
    assert facts["text"] == "builtin"


def test_an_evaluation_to_read_has_the_floor_and_what_others_found(tiny_model: TinyModel, tmp_path: Path) -> None:
    run("compress", tiny_model("llama"), "--group-size", 32, "--out", tmp_path / "small")
    answer = run("evaluate", tmp_path / "small", "--against", tiny_model("llama"))
    assert text("terminal.floor") in answer.stdout
    assert text("drift.guidance_4") in answer.stderr
    assert text("drift.guidance_about") in answer.stderr
    original = run("evaluate", tiny_model("llama"), "--against", tiny_model("llama"))
    assert "QLLM-Eval" not in original.stderr  # nothing was compressed


def test_a_file_and_a_data_set_are_read_and_named(tiny_model: TinyModel, tmp_path: Path, hub: LocalHub) -> None:
    (tmp_path / "mine.txt").write_text(LONG)
    model, name = tiny_model("llama"), "hf://datasets/owner/stories/test.jsonl#text"
    figures = [
        run("evaluate", model, "--against", model, "--text", given, "--json").json
        for given in (tmp_path / "mine.txt", "hf://datasets/owner/stories")
    ]
    assert [facts["text"] for facts in figures] == ["mine.txt", name]
    assert figures[0]["perplexity"] == figures[1]["perplexity"]  # the same words
    folders: list[Path] = []
    for given in (tmp_path / "mine.txt", name):
        folders.append(tmp_path / f"out{len(folders)}")
        assert run(*calibrated(model, folders[-1], "--calibrate", given)).code == 0
    first, second = (read_recipe(folder).choices.calibration for folder in folders)
    assert first is not None
    assert second is not None
    assert (first.text, second.text) == ("mine.txt", name)
    assert first.digest == second.digest != ""
    assert first.tokens == second.tokens == ()  # whoever owns the text keeps it
    assert name.split("#")[0] in (folders[1] / "README.md").read_text()


def test_a_model_calibrates_on_what_it_writes(tiny_model: TinyModel, tmp_path: Path) -> None:
    answer = run(*calibrated(tiny_model("llama"), tmp_path / "out", "--calibrate", "generated", "--json"))
    assert answer.code == 0
    assert text("stage.generate") in answer.stderr
    assert str(read_recipe(tmp_path / "out").choices.calibration).startswith("generated: 2 x 256 tokens, ")
    again = run(*calibrated(tiny_model("llama"), tmp_path / "again", "--calibrate", "generated", "--json"))
    assert text("stage.generate") not in again.stderr
    weights = [(tmp_path / name / "weights.studio").read_bytes() for name in ("out", "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("command", ["compress", "evaluate"])
@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"", "text_empty"),
        (b"\x89PNG\x00\xff", "text_binary"),
        (b"Too short.", "text_too_short"),
        (None, "text_missing"),
    ],
    ids=["empty", "binary", "short", "missing"],
)
def test_a_bad_text_is_a_sentence(
    tiny_model: TinyModel, tmp_path: Path, command: str, content: bytes | None, key: str
) -> None:
    file, model = tmp_path / "bad.txt", tiny_model("llama")
    if content is not None:
        file.write_bytes(content)
    if command == "compress":
        answer = run(*calibrated(model, tmp_path / "out", "--calibrate", file, "--json"))
    else:
        answer = run("evaluate", model, "--against", model, "--text", file, "--json")
    assert_refused(answer, key)
    assert not (tmp_path / "out").exists()


def test_a_bad_data_set_is_a_sentence(tiny_model: TinyModel, tmp_path: Path, hub: LocalHub) -> None:
    model = tiny_model("llama")
    answer = run("evaluate", model, "--against", model, "--text", "hf://datasets/owner/nothing", "--json")
    assert_refused(answer, "dataset_not_found")
    answer = run(*calibrated(model, tmp_path / "out", "--calibrate", "hf://datasets/stories", "--json"))
    assert_refused(answer, "bad_dataset_name")


def test_an_encoder_has_no_head_to_calibrate_or_evaluate(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    BertForMaskedLM(BertConfig(vocab_size=300, **sizes)).save_pretrained(tmp_path / "bert")
    for given in ("builtin", "generated"):
        answer = run(*calibrated(tmp_path / "bert", tmp_path / "out", "--calibrate", given, "--json"))
        assert_refused(answer, "no_language_model")
    answer = run("evaluate", tmp_path / "bert", "--against", tmp_path / "bert", "--json")
    assert_refused(answer, "cannot_chat")


def test_a_layer_that_is_given_nothing_is_named(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = tmp_path / "dead"
    shutil.copytree(tiny_model("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"].zero_()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    answer = run(*calibrated(folder, tmp_path / "out"))
    assert text("terminal.unreached", layers="model.layers.0.mlp.down_proj.weight") in answer.stderr
