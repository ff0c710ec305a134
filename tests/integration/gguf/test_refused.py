"""What strangers write into a model changes nothing of a GGUF file but its words, or is refused in a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.base.errors import ModelError, ResourceError, SchemeError, UserError
from studio.base.text import LANGUAGES
from studio.base.units import format_bytes
from studio.checkpoint.open_model import open_model
from studio.checkpoint.recipe import RECIPE
from studio.export.compressed_model import opened
from studio.export.gguf.families import FAMILIES
from studio.export.gguf.types import SAME
from studio.export.targets import TARGETS, export
from studio.planning.choice import Choice
from studio.planning.mixes import MIXES
from studio.planning.plan import make_plan
from studio.quantization.scheme import Mode
from tests import family_models
from tests.conftest import save_tiny_model, tiny_tokenizer
from tests.families import tiny
from tests.full_disk import largest_file
from tests.integration.gguf.models import SHAPE, edited, packed, save
from tests.steps import finish

TARGET = TARGETS["gguf"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("llama")
    return packed(save("llama", place / "source"), place / "packed")


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A copy of a compressed model, to be changed."""
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def written(folder: Path, out: Path) -> dict[str, Any]:
    """Return the metadata of the file that a folder becomes, all of whose tensors are whole."""
    file = finish(export(TARGET, folder, out))
    reader = gguf.GGUFReader(file)
    assert len(reader.tensors) == len(opened(folder).plan.assignments)
    return {name: field.contents() for name, field in reader.fields.items()}


HOSTILE = {
    "path": "../../../etc/passwd",
    "slashes": "a/b\\c/..",
    "control characters": "a\x00b\x1b[31mc\r\nd\u202ee",
    "half a character": "a\ud800b",
    "html": "<script>alert(1)</script>",
    "10,000 characters": "x" * 10_000,
    "nothing": "",
}


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_words_of_a_recipe_are_only_words(words: str, folder: Path, tmp_path: Path) -> None:
    def say(recipe: dict[str, Any]) -> None:
        source = {"model": words, "base_model": words, "license": {"id": words, "name": words}}
        recipe["source"] = recipe["source"] | source

    edited(folder, RECIPE, say)
    before = {path for path in tmp_path.rglob("*") if folder not in path.parents}
    fields = written(folder, tmp_path / "out.gguf")
    assert {path for path in tmp_path.rglob("*") if folder not in path.parents} - before == {tmp_path / "out.gguf"}
    assert len(fields["general.name"]) <= 2000
    assert fields["general.name"].isprintable()
    assert not {"general.license", "general.base_model.0.repo_url"} & fields.keys() or words.isalnum()
    assert fields["general.architecture"] == "llama"


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_words_of_the_original_s_config_are_only_words(words: str, tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "source")
    edited(tmp_path / "source", "config.json", lambda config: config.update(_name_or_path=words, license=words))
    card = f"---\nlicense: {words!r}\nbase_model: {words!r}\n---\n"
    (tmp_path / "source" / "README.md").write_text(card, encoding="utf-8")
    folder = packed(tmp_path / "source", tmp_path / "packed", Choice(Mode.Q8_0, 32, backup=Mode.Q8_0))
    fields = written(folder, tmp_path / "out.gguf")
    assert fields["general.name"] == "source"
    assert not words or words not in [value for value in fields.values() if isinstance(value, str)]


def test_words_of_tokens_and_templates_come_through_as_they_are(folder: Path, tmp_path: Path) -> None:
    words = "\x00\x1b]0;x\x07<b>\u202e{{ ''.__class__ }}"

    def add(tokenizer: dict[str, Any]) -> None:
        index = len(tokenizer["model"]["vocab"])
        tokenizer["model"]["vocab"].pop(next(reversed(tokenizer["model"]["vocab"])))
        tokenizer["added_tokens"].append({"id": index - 1, "content": words, "special": False})

    (folder / "chat_template.jinja").write_text(words)
    edited(folder, "tokenizer.json", add)
    edited(folder, RECIPE, lambda recipe: recipe.update(sha256={}))
    fields = written(folder, tmp_path / "out.gguf")
    assert fields["tokenizer.chat_template"] == words
    assert words in fields["tokenizer.ggml.tokens"]


def test_a_scheme_that_no_type_holds_is_refused_with_what_it_would_become(tmp_path: Path) -> None:
    """And that is what it becomes, to the byte, where somebody chooses it by that name."""
    save_tiny_model("llama", tmp_path / "source")
    folder = packed(tmp_path / "source", tmp_path / "packed", Choice.of("int4_asym", 64, 1.0))
    with pytest.raises(SchemeError) as caught:
        finish(export(TARGET, folder, tmp_path / "out.gguf"))
    assert not (tmp_path / "out.gguf").exists()
    assert caught.value.key == "to_gguf_scheme"
    said = {key: str(value) for key, value in caught.value.values.items()}
    assert said["scheme"] in ("int4_asym-g64", "int8_asym")
    assert said["modes"].split(", ") == [mode.value for mode in Mode if mode.is_in_blocks]
    mixed = packed(tmp_path / "source", tmp_path / "mixed", Choice.of(mix=said["mix"]))
    plan = opened(mixed).plan
    assert said["size"] == format_bytes(TARGET.size(plan))
    assert said["bits"] == f"{TARGET.size(plan) * 8 / plan.weights:.2f}"
    others = [Choice.of(mix=name) for name in MIXES if name != said["mix"]]
    layers = [a.layer for a in plan.assignments]
    aim = opened(folder).plan.compressed_bytes
    distances = [abs(TARGET.size(make_plan(layers, each)) - aim) for each in others]
    assert abs(TARGET.size(plan) - aim) <= min(distances)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_refusal_says_so_in_every_language(language: str, tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "source")
    checkpoint = finish(open_model(str(tmp_path / "source"), True))
    refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of("int4_asym", 64, 1.0)), checkpoint)
    assert refused is not None
    words = refused.sentence(language)
    assert all(str(refused.values[key]) in words for key in ("scheme", "mix", "size", "bits", "modes"))
    assert f"--to gguf:{refused.values['mix']} --from-original" in words


@pytest.mark.parametrize("scheme", SAME)
def test_what_is_the_same_is_taken(scheme: str, tmp_path: Path) -> None:
    mode, _, _ = scheme.partition("-")
    save_tiny_model("llama", tmp_path / "source")
    folder = packed(tmp_path / "source", tmp_path / "packed", Choice.of(mode, 32, 1.0, "none"))
    assert TARGET.refusal(opened(folder).plan, opened(folder).checkpoint) is None


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "glm", "gemma", "qwen3_moe"])
def test_a_family_that_is_not_there_is_refused_by_its_name(family: str, tmp_path: Path) -> None:
    assert family not in FAMILIES
    family_models.save(family, tmp_path / "source")
    folder = packed(tmp_path / "source", tmp_path / "packed", Choice(Mode.Q8_0, 32, backup=Mode.Q8_0))
    with pytest.raises(ModelError) as caught:
        finish(export(TARGET, folder, tmp_path / "out.gguf"))
    assert caught.value.key in ("to_gguf_family", "to_gguf_tensor")
    assert family in str(caught.value)


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64}
SETTINGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "another activation": ("llama", {"hidden_act": "gelu"}, "hidden_act"),
    "ends of YaRN's own": (
        "llama",
        {"rope_parameters": YARN | {"beta_fast": 16.0}},
        "beta_fast",
    ),
    "a part of a head that rotates": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor",
    ),
    "a dynamic rotation": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "dynamic",
    ),
    "another scale of scores": ("gemma2", {"query_pre_attn_scalar": 99, "layer_types": None}, "query_pre_attn_scalar"),
    "another order of layers": (
        "gemma3_text",
        {"query_pre_attn_scalar": 32, "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2},
        "layer_types",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting_that_llama_cpp_does_not_follow_is_refused_by_its_name(case: str, tmp_path: Path) -> None:
    family, settings, key = SETTINGS[case]
    tiny.save(family, tmp_path / "source", **SHAPE | {"num_hidden_layers": 2} | settings)
    tiny_tokenizer().save_pretrained(tmp_path / "source")
    folder = packed(tmp_path / "source", tmp_path / "packed", Choice(Mode.Q8_0, 32, backup=Mode.Q8_0))
    with pytest.raises(ModelError) as caught:
        finish(export(TARGET, folder, tmp_path / "out.gguf"))
    assert caught.value.key == "to_gguf_setting_unknown"
    before = TARGET.refusal(opened(folder).plan, opened(folder).checkpoint)
    assert str(before) == str(caught.value)  # said before anything is compressed
    assert key in str(caught.value)


def test_what_is_there_stays(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.gguf").write_text("mine")
    with pytest.raises(ResourceError) as caught:
        finish(export(TARGET, folder, tmp_path / "out.gguf"))
    assert caught.value.key == "already_there"
    assert (tmp_path / "out.gguf").read_text() == "mine"


@pytest.mark.parametrize("nbytes", [0, 5_000, 60_000, 200_000])
def test_a_disk_that_fills_up_leaves_nothing(nbytes: int, folder: Path, tmp_path: Path) -> None:
    """In the header, in the first tensor, and among the others."""
    before = set(tmp_path.rglob("*"))
    with largest_file(nbytes), pytest.raises(ResourceError) as caught:
        finish(export(TARGET, folder, tmp_path / "out.gguf"))
    assert (caught.value.key, caught.value.values) == ("export_disk_full", {"path": str(tmp_path)})
    assert set(tmp_path.rglob("*")) == before
    finish(export(TARGET, folder, tmp_path / "out.gguf"))


def test_a_disk_that_is_too_small_is_found_before_the_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = TARGET.file_size(opened(folder)) - 1  # one byte too few
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, free))
    steps = export(TARGET, folder, tmp_path / "out.gguf")
    with pytest.raises(ResourceError) as caught:
        next(steps)
    assert caught.value.key == "export_disk_full"
    assert not (tmp_path / "out.gguf").exists()


def test_one_that_is_stopped_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    steps = export(TARGET, folder, tmp_path / "out.gguf")
    for _ in range(3):
        next(steps)
    steps.close()
    assert set(tmp_path.rglob("*")) == before


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "half a tokenizer": lambda folder: (folder / "tokenizer.json").write_text('{"model": {'),
    "a tokenizer without a model": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no weights": lambda folder: next(iter(folder.glob("*.studio"))).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_a_sentence_and_leaves_nothing(damage: str, folder: Path, tmp_path: Path) -> None:
    DAMAGES[damage](folder)
    with pytest.raises(UserError):
        finish(export(TARGET, folder, tmp_path / "out.gguf"))
    assert not (tmp_path / "out.gguf").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_weight_that_is_no_number_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    file = next(iter(folder.glob("*.studio")))
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("norm.weight"))
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    save_file(tensors, file, json.loads(json.dumps({"format": "pt"})))
    with pytest.raises(UserError):
        finish(export(TARGET, folder, tmp_path / "out.gguf"))
    assert not (tmp_path / "out.gguf").exists()
