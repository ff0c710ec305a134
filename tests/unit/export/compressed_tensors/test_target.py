"""The folder: its bytes are told to the last one, its config names every weight's settings, refusals are sentences."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from studio.base.errors import ModelError, SchemeError
from studio.base.text import LANGUAGES
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.hub import is_wanted
from studio.checkpoint.recipe import RECIPE
from studio.export.compressed_model import opened
from studio.export.compressed_tensors.target import TARGET, quantization
from studio.export.targets import export
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.session.api import compress
from tests import family_models
from tests.steps import finish

PINS = ["*.1.*v_proj=none", "*o_proj=int8_sym"]
CHOICES: dict[str, Any] = {"mode": "int4_sym", "group_size": 32, "backup": "none", "pins": PINS}


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compressed") / "packed"
    compress(str(tiny_model("llama")), out, **CHOICES)
    return out


def test_what_is_written_has_the_bytes_that_were_told(folder: Path, tmp_path: Path) -> None:
    model = opened(folder)
    first, second = (finish(export(TARGET, folder, tmp_path / name)) for name in ("one", "two"))
    files = {path.name: path.read_bytes() for path in first.iterdir()}
    assert sum(map(len, files.values())) == TARGET.file_size(model)
    assert files == {path.name: path.read_bytes() for path in second.iterdir()}
    copied = {path.name for path in folder.iterdir() if is_wanted(path.name)}
    assert files.keys() == copied | {"config.json", "model.safetensors", "README.md"}
    assert RECIPE not in files
    with safe_open(first / "model.safetensors", "pt") as held:
        nbytes = sum(held.get_tensor(name).nbytes for name in held.keys())  # noqa: SIM118 - no mapping
        assert held.metadata() == {"format": "pt"}
    shapes = 16 * sum(a.scheme is not None for a in model.plan.assignments)
    assert nbytes == TARGET.size(model.plan) == model.plan.compressed_bytes + shapes


def test_the_config_names_every_layer_of_a_mixed_plan(folder: Path, tmp_path: Path) -> None:
    out = finish(export(TARGET, folder, tmp_path / "out"))
    words = json.loads((out / "config.json").read_text())["quantization_config"]
    assert (words["quant_method"], words["format"]) == ("compressed-tensors", "pack-quantized")
    bits = {
        name: group["weights"]["num_bits"] for group in words["config_groups"].values() for name in group["targets"]
    }
    linear = [a for a in opened(folder).plan.assignments if a.scheme is not None]
    assert bits.keys() == {a.layer.name.removesuffix(".weight") for a in linear}
    assert {name for name, each in bits.items() if each == 8} == {name for name in bits if name.endswith("o_proj")}
    assert "model.layers.1.self_attn.v_proj" in words["ignore"]
    assert "lm_head" in words["ignore"]


def test_a_plan_of_one_scheme_is_told_by_the_class(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    words = quantization(make_plan(checkpoint.layers, Choice.of("int4_sym", 32, 1.0, "none")))
    assert [group["targets"] for group in words["config_groups"].values()] == [["Linear"]]
    assert words["ignore"] == ["lm_head"]
    pinned = Choice.of("int4_sym", 32, 1.0, "none", pins=["lm_head*=int4_sym-g32"])
    words = quantization(make_plan(checkpoint.layers, pinned))
    assert "lm_head" in words["config_groups"]["group_0"]["targets"]  # no linear module in vLLM
    assert words["ignore"] == []


def test_the_card_says_how_it_is_run_and_who_does_not_load_it(folder: Path, tmp_path: Path) -> None:
    card = (finish(export(TARGET, folder, tmp_path / "out")) / "README.md").read_text()
    assert 'library_name: "compressed-tensors"' in card
    for command in ("from_pretrained", "vllm serve", "sglang.launch_server"):
        assert command in card
    assert "--pin 'model.layers.1.self_attn.v_proj=int4_sym-g32'" in card


@pytest.mark.parametrize("language", LANGUAGES)
def test_refusals_are_sentences_in_every_language(language: str, tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    for mode, key in (("int4_asym", "to_compressed_zero_points_scheme"), ("nf4", "to_compressed_scheme")):
        refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of(mode, 32, 1.0)), checkpoint)
        assert isinstance(refused, SchemeError)
        assert refused.key == key
        words = refused.sentence(language)
        assert "--from-original --mode int4_sym --group-size 32 --backup none" in words
    refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of("int8_sym")), checkpoint)
    assert isinstance(refused, SchemeError)
    assert refused.key == "to_compressed_embedding_scheme"
    assert "--pin 'model.embed_tokens=none'" in refused.sentence(language)
    for preset in TARGET.presets.values():
        words_of = dict[str, Any](preset)
        choice = Choice.of(**(words_of | ({} if words_of["mode"] == "int8_sym" else {"group_size": 32})))
        assert TARGET.refusal(make_plan(checkpoint.layers, choice), checkpoint) is None


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_weights_that_are_no_plain_layers_are_named(family: str, tmp_path: Path) -> None:
    family_models.save(family, tmp_path / "source")
    checkpoint = of_folder(tmp_path / "source")
    refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of("int4_sym", 32, 1.0, "none")), checkpoint)
    assert isinstance(refused, ModelError)
    assert refused.key == "to_compressed_tensor"
    assert family in refused.sentence()
