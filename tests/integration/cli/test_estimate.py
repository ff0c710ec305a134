"""``python -m studio estimate`` and ``prepare``: sizes, choices and layers before a weight is read."""

from pathlib import Path

import pytest

from studio.checkpoint import open_model
from studio.checkpoint.checkpoint import Checkpoint
from studio.planning.choice import OPTIONS
from tests.conftest import save_tiny_model
from tests.terminal import TinyModel, assert_refused, run


@pytest.mark.real
@pytest.mark.parametrize(
    ("choices", "nbytes"),
    [
        (["--mode", "int8_asym"], 135_164_160),
        (["--mode", "int4_asym", "--group-size", "64", "--ratio", "0.9"], 90_761_184),
    ],
    ids=["int8_asym", "int4_asym-g64-0.9"],
)
def test_the_size_of_the_builtin_model(builtin: Checkpoint, choices: list[str], nbytes: int) -> None:
    facts = run("estimate", "builtin", *choices, "--json").json
    assert facts["exact"]
    assert facts["original_bytes"] == 269_030_016
    assert facts["compressed_bytes"] == nbytes
    assert facts["bits_per_weight"] == pytest.approx(8 * nbytes / (269_030_016 / 2))
    assert facts["source_format"] == "Q4_1/Q8_0"
    assert facts["source_bytes"] == open_model.builtin_file().stat().st_size  # type: ignore[union-attr]
    assert sum(layer["bytes"] for layer in facts["layers"]) == nbytes


def test_an_estimate_names_every_choice_and_layer(tiny_model: TinyModel) -> None:
    arguments = ("--mode", "int4_sym", "--group-size", "32", "--ratio", "0.5", "--backup", "none")
    facts = run("estimate", tiny_model("llama"), *arguments, "--json").json
    assert facts.keys() == {
        *("model", "revision", "architecture", "source_format", "source_bytes", "part", "can_chat"),
        *("original_bytes", "compressed_bytes"),
        *("bits_per_weight", "exact", "layers"),
        *(option.key for option in OPTIONS.values()),
    }
    assert (facts["mode"], facts["group_size"], facts["ratio"], facts["backup"]) == ("int4_sym", 32, 0.5, "none")
    assert facts["architecture"] == "llama"
    layers = {layer["name"]: layer for layer in facts["layers"]}
    assert layers["model.embed_tokens.weight"]["scheme"] == "float16"  # the backup
    assert layers["model.norm.weight"] == {
        "name": "model.norm.weight",
        "shape": [64],
        "scheme": "float16",
        "bytes": 128,
    }
    assert {layer["scheme"] for layer in layers.values()} == {"float16", "int4_sym-g32"}


def test_an_estimate_to_read_says_the_same_bytes(tiny_model: TinyModel) -> None:
    facts = run("estimate", tiny_model("qwen3"), "--json").json
    answer = run("estimate", tiny_model("qwen3"))
    assert answer.code == 0
    assert len(answer.stdout.splitlines()) < 8
    assert f"{facts['bits_per_weight']:.2f} bits per weight" in answer.stdout


def test_groups_give_way_unless_they_were_named(tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "narrow", hidden_size=96)  # 96 is no multiple of 64
    assert run("estimate", tmp_path / "narrow", "--json").json["group_size"] == 32
    assert_refused(run("estimate", tmp_path / "narrow", "--group-size", 64, "--json"), "group_size_misfit")


@pytest.mark.real
def test_the_prepared_model_is_named(builtin: Checkpoint) -> None:
    facts = run("prepare", "--json").json
    assert Path(facts["path"]) == builtin.folder
    assert facts["revision"] == builtin.revision
