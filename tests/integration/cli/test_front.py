"""A front on the terminal: plans and mixes predicted, some measured, files of others judged on the same text; and what
is refused."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from studio.evaluation import evaluate
from studio.evaluation.questions import Question
from studio.planning.choice import Choice
from tests.conftest import save_tiny_model
from tests.packed_models import Gptq, packed_folder
from tests.terminal import TinyModel, assert_refused, run


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(evaluate, "WINDOWS", 4)
    monkeypatch.setattr(evaluate, "questions", lambda: (Question("The capital of France is", ("Paris", "Rome"), 0),))


def test_a_front_holds_plans_mixes_and_what_others_made(tiny_model: TinyModel, tmp_path: Path) -> None:
    model, gguf = tiny_model("llama"), tmp_path / "theirs.gguf"
    assert run("export", model, "--to", "gguf:Q4_0", "--method", "nearest", "--out", gguf).code == 0
    ours = tmp_path / "ours"
    assert run("compress", model, "--mode", "int4_sym", "--group-size", "32", "--out", ours).code == 0
    table, picture = tmp_path / "new" / "front.csv", tmp_path / "front.html"
    options = ("--method", "nearest", "--points", 4, "--measure", 2, "--with", gguf, "--with", ours)
    answer = run("front", model, *options, "--csv", table, "--html", picture, "--json")
    assert answer.code == 0, answer
    facts = answer.json
    kinds = [point["kind"] for point in facts["points"]]
    assert kinds.count("plan") >= 3
    assert kinds.count("mix") >= 3
    assert kinds.count("other") == 2
    measured = {point["name"]: point for point in facts["points"] if point["source"] == "measured"}
    assert len(measured) == 4
    assert set(measured) > {"theirs", "ours"}
    plans = [point for point in facts["points"] if point["kind"] == "plan"]
    assert [point["bytes"] for point in plans] == sorted(point["bytes"] for point in plans)
    assert plans[0]["predicted"] > plans[-1]["predicted"]
    assert all(Choice.of(**point["recipe"]).words() == point["recipe"] for point in plans)
    mix = next(point for point in facts["points"] if point["name"] == "Q4_0")
    assert abs(measured["theirs"]["bytes"] - mix["bytes"]) < 0.02 * mix["bytes"]
    assert len(facts["pairs"]) == 3
    assert all(pair["gain"] >= 0 for pair in facts["pairs"])
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["name"] for row in rows] == [point["name"] for point in facts["points"]]
    assert json.loads(rows[0]["recipe"]) == facts["points"][0]["recipe"]
    assert "plotly" in picture.read_text(encoding="utf-8")[:200000].lower()


def test_a_file_is_judged_as_evaluate_does(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tiny_model("llama")
    theirs = tmp_path / "gptq"
    packed_folder(model, theirs, Gptq(act_order=True, symmetric=False))
    front = run("front", model, "--points", 1, "--method", "nearest", "--with", theirs, "--whole", "--json").json
    alone = run("evaluate", theirs, "--against", model, "--json").json
    [point] = [point for point in front["points"] if point["kind"] == "other"]
    assert point["kld"] == pytest.approx(alone["kld"]["mean"], rel=1e-6)
    assert point["tokens"] == alone["tokens"]
    assert point["bytes"] < front["original_bytes"]


def test_it_is_read_in_lines(tiny_model: TinyModel) -> None:
    answer = run("front", tiny_model("llama"), "--points", 2, "--method", "nearest", "--to", "studio")
    assert answer.code == 0
    assert "Q4_K_M" in answer.stdout
    assert answer.stdout.count("predicted") > 3


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_a_file_of_another_architecture_is_refused(tiny_model: TinyModel, architecture: str) -> None:
    answer = run("front", tiny_model("llama"), "--with", tiny_model(architecture), "--json")
    assert_refused(answer, "judge_architecture")
    assert architecture in answer.stderr


def test_a_file_of_another_size_or_other_weights_is_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "wide", intermediate_size=192)
    answer = run("front", tiny_model("llama"), "--with", tmp_path / "wide", "--json")
    assert_refused(answer, "judge_tensor")
    assert "192 × 64" in answer.stderr
    other = tmp_path / "other"
    shutil.copytree(tiny_model("llama"), other)
    _with_other_weights(other)
    assert_refused(run("front", tiny_model("llama"), "--with", other, "--json"), "judge_weights")


def _with_other_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    [file] = folder.glob("*.safetensors")
    weights = {name: torch.randn_like(tensor.float()).to(tensor.dtype) for name, tensor in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (("--to", "paper"), "unknown_target"),
        (("--method", "magic"), "unknown_method"),
        (("--with", "no such file"), "bad_model_name"),
    ],
)
def test_what_cannot_be_is_refused(tiny_model: TinyModel, options: tuple[str, ...], key: str) -> None:
    assert_refused(run("front", tiny_model("llama"), *options, "--json"), key)


def test_a_target_that_does_not_hold_the_model_says_so(tiny_model: TinyModel) -> None:
    assert_refused(run("front", tiny_model("gpt2"), "--to", "onnx", "--json"), "to_graph_family")


def test_nothing_is_overwritten(tiny_model: TinyModel, tmp_path: Path) -> None:
    file = tmp_path / "there.csv"
    file.write_text("mine", encoding="utf-8")
    assert_refused(run("front", tiny_model("llama"), "--csv", file, "--json"), "already_there")
    assert file.read_text(encoding="utf-8") == "mine"
