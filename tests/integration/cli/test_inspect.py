"""``inspect`` and ``evaluate`` of what others made: their schemes, their errors, their drift; never ours."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.checkpoint.checkpoint import of_folder
from studio.evaluation import evaluate
from studio.evaluation.questions import Question
from tests.gguf_models import Written
from tests.packed_models import Awq, CompressedTensors, Format, Gptq, packed_folder
from tests.terminal import TinyModel, assert_refused, run

FORMATS: dict[str, Format] = {
    "gptq": Gptq(act_order=True, symmetric=False),
    "awq": Awq(),
    "compressed-tensors": CompressedTensors(bits_of={"down_proj": 8}),
}


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(evaluate, "WINDOWS", 4)
    monkeypatch.setattr(evaluate, "questions", lambda: (Question("The capital of France is", ("Paris", "Rome"), 0),))


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS.keys())
def test_weight_errors_are_theirs_tensor_by_tensor(kind: Format, tiny_model: TinyModel, tmp_path: Path) -> None:
    values = packed_folder(tiny_model("llama"), tmp_path, kind)
    facts = run("inspect", tmp_path, "--against", tiny_model("llama"), "--json").json
    exact = load_file(tiny_model("llama") / "model.safetensors")
    lines = {line["name"]: line for line in facts["tensors"]}
    for name, value in values.items():
        weight = exact[name].double()
        assert lines[name]["weight_error"] == pytest.approx(float((value - weight).norm() / weight.norm()), rel=1e-4)
        assert lines[name]["type"].split()[0].lower() == kind.config["quant_method"]
    assert lines["model.embed_tokens.weight"]["weight_error"] == 0
    assert lines["model.norm.weight"]["weight_error"] is None
    worst = max(line["weight_error"] for line in lines.values() if line["weight_error"] is not None)
    assert 0 < max(each["weight_error"] or 0 for each in facts["types"]) <= worst


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS.keys())
def test_drift_is_theirs(kind: Format, tiny_model: TinyModel, tmp_path: Path) -> None:
    packed_folder(tiny_model("llama"), tmp_path, kind)
    facts = run("evaluate", tmp_path, "--against", tiny_model("llama"), "--json").json
    assert facts["kld"]["mean"] > 0


def test_a_gguf_file_is_compared_with_the_model_that_it_was_made_of(tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    exact, coarse = written.file("exact.gguf"), written.file("coarse.gguf", lambda _: "Q4_0")
    facts = run("inspect", coarse, "--against", exact, "--json").json
    lines = {line["name"]: line for line in facts["tensors"]}
    assert lines["model.layers.0.self_attn.q_proj.weight"]["type"] == "Q4_0"  # whose rows were rearranged
    assert lines["model.layers.0.self_attn.q_proj.weight"]["bits_per_weight"] == 4.5
    assert all(0.05 < line["weight_error"] < 0.15 for line in lines.values() if line["type"] == "Q4_0")
    assert run("inspect", coarse, "--json").json["bytes"] == facts["bytes"] == sum(x["bytes"] for x in lines.values())
    assert run("evaluate", coarse, "--against", exact, "--json").json["kld"]["mean"] > 0.001
    estimate = run("estimate", coarse, "--json").json
    assert estimate["source_format"] == "Q4_0"


def test_a_folder_that_compress_made_is_compared_too(tiny_model: TinyModel, tmp_path: Path) -> None:
    out = tmp_path / "small"
    made = run("compress", tiny_model("llama"), "--group-size", 32, "--out", out, "--json").json
    facts = run("inspect", out, "--against", tiny_model("llama"), "--json").json
    errors = {layer["name"]: layer["relative_error"] for layer in made["layers"] if layer["relative_error"]}
    lines = {line["name"]: line for line in facts["tensors"]}
    assert errors
    for name, error in errors.items():
        assert lines[name]["weight_error"] == pytest.approx(error, rel=1e-3)


def test_what_is_read_has_the_types_and_with_all_every_tensor(tiny_model: TinyModel, tmp_path: Path) -> None:
    packed_folder(tiny_model("llama"), tmp_path, FORMATS["compressed-tensors"])
    short, every = run("inspect", tmp_path), run("inspect", tmp_path, "--all")
    assert short.code == every.code == 0
    for words in ("compressed-tensors int4_sym-g32", "compressed-tensors int8_sym-g32", "BF16"):
        assert words in short.stdout
    name = "model.layers.1.mlp.down_proj.weight"
    assert name not in short.stdout
    line = next(line for line in every.stdout.splitlines() if name in line)
    assert "int8_sym-g32, 64 × 128, " in line


def bits_nobody_has(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"bits": 4', '"bits": 5'))


def cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1000)


def other_groups(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"group_size": 32', '"group_size": 64'))


@pytest.mark.parametrize(
    ("damage", "key"),
    [(bits_nobody_has, "packed_setting"), (cut_short, "damaged_file"), (other_groups, "packed_mismatch")],
)
@pytest.mark.parametrize("command", ["inspect", "estimate"])
def test_a_damaged_folder_is_a_sentence(
    command: str, damage: Callable[[Path], None], key: str, tiny_model: TinyModel, tmp_path: Path
) -> None:
    packed_folder(tiny_model("llama"), tmp_path, Gptq())
    damage(tmp_path)
    assert_refused(run(command, tmp_path, "--json"), key)


def test_another_models_original_is_a_sentence(tiny_model: TinyModel, tmp_path: Path) -> None:
    packed_folder(tiny_model("llama"), tmp_path, Gptq())
    assert_refused(run("inspect", tmp_path, "--against", tiny_model("gpt2"), "--json"), "other_model")


def test_what_others_packed_can_be_compressed_anew(tiny_model: TinyModel, tmp_path: Path) -> None:
    packed_folder(tiny_model("llama"), tmp_path / "packed", Gptq())
    made = run("compress", tmp_path / "packed", "--mode", "int8_asym", "--out", tmp_path / "out", "--json").json
    assert all(layer["relative_error"] < 0.01 for layer in made["layers"] if layer["relative_error"])
    answer = run("inspect", tmp_path / "out", "--against", tmp_path / "packed", "--json").json
    assert 0 < max(each["weight_error"] or 0 for each in answer["types"]) < 0.01


def test_a_conv1d_of_gpt2_is_output_first_in_the_file(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Its parameter is [K, N], and its file the same as of any other linear weight."""
    kind, plain = Gptq(), tmp_path / "plain"
    shutil.copytree(tiny_model("gpt2"), plain)
    tensors = load_file(plain / "model.safetensors")
    names = [name for name in tensors if name.endswith(("c_proj.weight", "c_attn.weight", "c_fc.weight"))]
    save_file(tensors | {name: tensors[name].T.contiguous() for name in names}, plain / "model.safetensors")
    values = packed_folder(plain, tmp_path / "m", kind, wanted=lambda name: name in names)
    checkpoint = of_folder(tmp_path / "m")
    layers = {layer.source: layer for layer in checkpoint.layers}
    assert values.keys() == set(names)
    for name, value in values.items():
        assert layers[name].transposed
        assert torch.equal(checkpoint.read(layers[name], 3, 9), value[3:9])
