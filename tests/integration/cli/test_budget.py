"""A budget on the terminal: what is written is within it, best by prediction, and refused where it cannot be; and a
model that is on a 4-bit grid already stays what it is."""

from pathlib import Path

import gguf
import pytest
import torch

from studio.checkpoint.recipe import read_recipe
from studio.planning.palettes import PALETTES
from tests.terminal import TinyModel, run, tensor_bytes
from tests.unit.planning.test_gridded import with_weights


@pytest.mark.parametrize("target", ["studio", "gguf"])
def test_what_is_written_is_within_the_budget_and_what_was_estimated(
    tiny_model: TinyModel, tmp_path: Path, target: str
) -> None:
    asked = (tiny_model("llama"), "--budget", "5.6bpw", "--to", target)
    estimated = run("estimate", *asked, "--json").json
    facts = run("compress", *asked, "--out", tmp_path / "out", "--json").json
    for layer in facts["layers"]:
        layer.pop("relative_error")
    assert {key: facts[key] for key in estimated} == estimated
    assert estimated["exact"]
    assert (estimated["budget"], estimated["target"]) == ("5.6bpw", target)
    assert facts["compressed_bytes"] == tensor_bytes(tmp_path / "out" / "weights.studio")
    assert 5 < estimated["bits_per_weight"] <= 5.6
    assert len({layer["scheme"] for layer in facts["layers"]}) > 2
    assert read_recipe(tmp_path / "out").choices.budget == "5.6bpw"


def test_a_mixes_bytes_are_spent_better_and_no_more_of_them(tiny_model: TinyModel) -> None:
    model = tiny_model("llama")
    theirs = run("estimate", model, "--mix", "q5_k_m", "--json").json
    ours = run("estimate", model, "--budget", "q5_k_m", "--to", "gguf", "--json").json
    assert ours["compressed_bytes"] <= theirs["compressed_bytes"]
    assert ours["layers"] != theirs["layers"]


def test_an_export_spends_it_on_what_the_target_holds(tiny_model: TinyModel, tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    asked = ("export", tiny_model("llama"), "--to", "gguf", "--budget", "6bpw", "--method", "nearest", "--out", out)
    assert run(*asked).code == 0
    types = {tensor.tensor_type.name for tensor in gguf.GGUFReader(out).tensors if len(tensor.shape) > 1}
    assert len(types) > 1
    assert types <= {scheme.mode.value.upper() for scheme in PALETTES["gguf"].schemes} | {"BF16", "F16"}
    weights = sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(out).tensors)
    assert sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(out).tensors) * 8 <= 6 * weights


@pytest.mark.parametrize("target", ["mlx", "onnx", "openvino", "compressed-tensors"])
def test_other_programs_load_it_too(tiny_model: TinyModel, tmp_path: Path, target: str) -> None:
    model, out = tiny_model("llama"), tmp_path / "out"
    asked = ("--budget", "80%", "--to", target, "--json")
    answer = run("export", model, *asked, "--method", "nearest", "--out", out)
    assert answer.code == 0, answer
    schemes = {layer["scheme"] for layer in run("estimate", model, *asked).json["layers"]}
    assert len(schemes) > 1
    assert schemes <= {str(scheme) for scheme in PALETTES[target].schemes} | {"float16"}


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (("--budget", "much"), "bad_budget"),
        (("--budget", "5"), "bad_budget"),
        (("--budget", "1bpw"), "budget_range"),
        (("--budget", "5GB"), "budget_range"),
        (("--budget", "fits:0.1GB"), "budget_range"),
        (("--budget", "fits:8GB@900000k"), "budget_context"),
        (("--budget", "fits:desk"), "bad_budget"),
        (("--budget", "5GB", "--ratio", "0.5"), "budget_and_other"),
        (("--budget", "5GB", "--mix", "q4_k_m"), "budget_and_other"),
        (("--budget", "5bpw", "--to", "paper"), "unknown_target"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(tiny_model: TinyModel, options: tuple[str, ...], key: str) -> None:
    answer = run("estimate", tiny_model("llama"), *options, "--json")
    assert answer.code == 2
    assert answer.json["error"]["key"] == key


def test_a_machine_with_room_for_more_leaves_the_model_as_it_is(tiny_model: TinyModel) -> None:
    facts = run("estimate", tiny_model("llama"), "--budget", "fits:gpu80@64", "--json").json
    assert facts["compressed_bytes"] == facts["original_bytes"]


@pytest.mark.parametrize("method", ["nearest", "least_squares", "awq", "best", "tuned"])
@pytest.mark.parametrize("mode", ["q4_0", "q4_1"])
def test_a_model_on_a_grid_stays_what_it_is(tiny_model: TinyModel, tmp_path: Path, mode: str, method: str) -> None:
    with_weights(tiny_model("llama"), tmp_path / "model", mode, torch.bfloat16)
    asked = ("--mode", mode, "--method", method, "--out", tmp_path / "out", "--json")
    answer = run("compress", tmp_path / "model", *asked)
    errors = [layer["relative_error"] for layer in answer.json["layers"] if layer["scheme"] == mode]
    assert errors == [0.0] * len(errors)
    assert len(errors) == 14
    assert f"{mode} keeps every one" in answer.stderr


def test_a_recipe_of_a_budget_makes_the_same_again(tiny_model: TinyModel, tmp_path: Path) -> None:
    model, out, again = tiny_model("llama"), tmp_path / "out", tmp_path / "again"
    run("compress", model, "--budget", "5.6bpw", "--to", "gguf", "--out", out)
    answer = run("apply", out / "recipe.json", "--source", model, "--out", again)
    assert answer.code == 0, answer
    assert (again / "weights.studio").read_bytes() == (out / "weights.studio").read_bytes()
