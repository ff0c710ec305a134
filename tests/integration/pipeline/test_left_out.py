"""Tensors that no program runs as part of a model stay beside it in the studio's folder, and where a loader passes over
them; elsewhere they are named."""

import json
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.file_names import LEFT_OUT
from studio.export import targets
from studio.export.compressed_model import opened
from studio.export.verify_folder import verified
from studio.runtime.model import load_compressed
from studio.session.api import compress
from tests import family_models
from tests.engines.models import save
from tests.steps import finish
from tests.terminal import run
from tests.unit.checkpoint.test_carried import same

EXTRA = {
    "mtp.fc.weight": torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "mtp.norm.weight": torch.ones(64),
}
TOWER = {"vision_tower.patch.weight": torch.arange(48.0).reshape(6, 8)}
SYMMETRIC = {"mode": "int4_sym", "group_size": 32, "backup": "none"}


def with_more(folder: Path) -> Path:
    file = folder / "model.safetensors"
    save_file(load_file(file) | EXTRA | TOWER, file, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressed folder of a family whose loaders know no further tensors."""
    place = tmp_path_factory.mktemp("llama")
    compress(str(with_more(save("llama", place / "source"))), place / "made", **SYMMETRIC)  # type: ignore[arg-type]
    return place / "made"


def test_the_studio_s_folder_has_them_as_they_came(llama: Path) -> None:
    found = load_file(llama / LEFT_OUT)
    assert found.keys() == EXTRA.keys() | TOWER.keys()
    assert all(same(found[name], tensor) for name, tensor in (EXTRA | TOWER).items())
    assert LEFT_OUT in json.loads((llama / "recipe.json").read_text())["sha256"]
    card = (llama / "README.md").read_text()
    assert "3 more tensors of 16,832 bytes (`mtp`, `vision_tower`)" in card
    assert "byte for byte" in card
    assert load_compressed(llama).training is False


def test_its_zip_has_them_and_no_byte_was_unforeseen(llama: Path, tmp_path: Path) -> None:
    target = targets.target_named("studio")
    expected = target.file_size(opened(llama))
    out = finish(targets.export(target, llama, tmp_path / "one.zip", check=True))
    assert out.stat().st_size == expected
    assert any(name.endswith(LEFT_OUT) for name in zipfile.ZipFile(out).namelist())


@pytest.mark.parametrize("to", ["compressed-tensors", "gguf"])
def test_a_target_without_a_place_names_them(to: str, llama: Path, tmp_path: Path) -> None:
    source = llama.with_name("source")
    words = ["--mix", "q8_0"] if to == "gguf" else ["--mode", "int4_sym", "--group-size", "32", "--backup", "none"]
    answer = run("export", source, "--to", to, "--out", tmp_path / "o", "--method", "nearest", *words)
    assert answer.code == 0, answer.stderr
    assert f"{to} has no place for 3 tensors" in answer.stderr
    assert "mtp" in answer.stderr
    card = next((tmp_path / "o").glob("README.md")).read_text()
    assert "They are not here." in card


@pytest.mark.skipif(find_spec("compressed_tensors") is None, reason="needs compressed-tensors of requirements-dev.txt")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_where_transformers_passes_over_them_they_go_along(tmp_path: Path, own_cache: Path) -> None:
    source = with_more(family_models.save("qwen3_5_text", tmp_path / "source"))
    compress(str(source), tmp_path / "made", **SYMMETRIC)  # type: ignore[arg-type]
    target, model = targets.target_named("compressed-tensors"), opened(tmp_path / "made")
    missing = target.leaves_out(model)
    assert missing is not None
    assert missing.parts == ("vision_tower",)  # which it would report
    out = finish(targets.export(target, tmp_path / "made", tmp_path / "out"))
    assert sum(file.stat().st_size for file in out.iterdir()) == target.file_size(model)
    found = load_file(out / "model.safetensors")
    assert all(same(found[name], tensor) for name, tensor in EXTRA.items())
    assert not found.keys() & TOWER.keys()
    loaded, info = tf.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert "mtp.fc" in json.loads((out / "config.json").read_text())["quantization_config"]["ignore"]
    assert any(name.endswith(".weight_packed") for name, _ in loaded.named_parameters())
    assert of_folder(out).left_out is not None  # and the studio opens it, too
    assert finish(verified(out, tmp_path / "made")).reader.mean < 1e-3  # in bf16
