"""The MLX folder: its bytes are told to the last one, the same folder gives the same files, and its config says all."""

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
from studio.export.mlx.target import TARGET
from studio.export.targets import export
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.session.api import compress
from tests import family_models
from tests.steps import finish

PINS = ["*.1.*v_proj=none", "*o_proj=int6_affine-g32"]
CHOICES: dict[str, Any] = {"mode": "int4_affine", "group_size": 32, "pins": PINS}


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mlx") / "packed"
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
        assert held.metadata() == {"format": "mlx"}
    assert nbytes == TARGET.size(model.plan) == model.plan.compressed_bytes


def test_the_config_names_what_differs(folder: Path, tmp_path: Path) -> None:
    out = finish(export(TARGET, folder, tmp_path / "out"))
    words = json.loads((out / "config.json").read_text())
    found = words["quantization"]
    assert {key: found[key] for key in ("group_size", "bits", "mode")} == {
        "group_size": 32, "bits": 4, "mode": "affine",
    }  # fmt: skip
    assert found["model.layers.0.self_attn.o_proj"] == {"group_size": 32, "bits": 6, "mode": "affine"}
    assert found["model.layers.1.self_attn.v_proj"] is False
    assert found["model.embed_tokens"]["bits"] == 8
    assert "model.layers.0.mlp.up_proj" not in found
    assert words["quantization_config"] == found
    assert {"rope_theta", "rope_scaling", "tie_word_embeddings", "num_key_value_heads", "eos_token_id"} <= words.keys()


def test_the_card_says_how_it_is_run(folder: Path, tmp_path: Path) -> None:
    card = (finish(export(TARGET, folder, tmp_path / "out")) / "README.md").read_text()
    assert 'library_name: "mlx"' in card
    assert "mlx_lm.chat --model" in card


@pytest.mark.parametrize("language", LANGUAGES)
def test_refusals_are_sentences_in_every_language(language: str, tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    for mode, key in (("int4_asym", "to_mlx_zero_point"), ("nf4", "to_mlx_scheme")):
        refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of(mode, 32, 1.0)), checkpoint)
        assert isinstance(refused, SchemeError)
        assert refused.key == key
        words = refused.sentence(language)
        assert "--to mlx --from-original --mode int4_affine --group-size 32" in words
    plan = make_plan(checkpoint.layers, Choice.of("int4_affine", 32, 1.0))
    assert TARGET.refusal(plan, checkpoint) is None
    for preset in TARGET.presets.values():
        choice = Choice.of(**(dict[str, Any](preset) | {"group_size": 32}))
        assert TARGET.refusal(make_plan(checkpoint.layers, choice), checkpoint) is None


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "gemma2"])
def test_a_family_that_is_not_there_is_refused_by_its_name(family: str, tmp_path: Path) -> None:
    family_models.save(family, tmp_path / "source")
    checkpoint = of_folder(tmp_path / "source")
    plan = make_plan(checkpoint.layers, Choice.of("int4_affine", 32, 1.0))
    refused = TARGET.refusal(plan, checkpoint)
    assert isinstance(refused, ModelError)
    assert refused.key in ("to_mlx_family", "to_mlx_tensor")
    assert family in refused.sentence()
