"""Compressed folders that somebody changed: whatever lies in them is refused before a model is loaded."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from studio.base.errors import CheckpointError, UserError
from studio.chat.columns import compressed_column
from studio.checkpoint.recipe import check_files, read_recipe
from studio.runtime.decoder import open_compressed
from studio.runtime.model import load_compressed
from studio.session.session import Session
from tests.damaged_folders import architecture_unknown, config_not_json, config_of_another_size, config_with_more_layers
from tests.steps import finish
from tests.visits import INT4, PACKED

Change = Callable[[dict[str, Any]], object]


TAMPERED: dict[str, tuple[Change, str]] = {
    "another-scheme": (lambda r: r["weights"][3].update(scheme="int4_sym-g32"), "tensor_no_place"),
    "another-mode": (lambda r: r["weights"][3].update(scheme="int3_asym-g32"), "bad_recipe"),
    "scheme-of-words": (lambda r: r["weights"][3].update(scheme="int4_asym-gmany"), "bad_recipe"),
    "another-shape": (lambda r: r["weights"][3].update(shape=[32, 128]), "recipe_mismatch"),
    "a-huge-shape": (lambda r: r["weights"][3].update(shape=[1 << 40, 1 << 40]), "recipe_mismatch"),
    "a-path-for-a-name": (lambda r: r["weights"][3].update(name="../../etc/passwd"), "recipe_mismatch"),
    "a-path-for-a-twin": (lambda r: r["weights"][3].update(tied=["../../etc/passwd.weight"]), "tensor_no_place"),
    "a-twin-that-is-another": (
        lambda r: r["weights"][3].update(tied=["model.layers.0.self_attn.q_proj.weight"]),
        "tensor_no_place",
    ),
    "a-twin-that-is-a-norm": (lambda r: r["weights"][3].update(tied=["model.norm.weight"]), "tensor_mismatch"),
    "a-twin-that-is-python": (lambda r: r["weights"][3].update(tied=["__class__.weight"]), "tensor_no_place"),
    "a-weight-left-out": (lambda r: r["weights"].pop(3), "tensor_no_place"),
    "no-weights": (lambda r: r.pop("weights"), "bad_recipe"),
    "another-format": (lambda r: r.update(format="other"), "bad_recipe"),
    "another-version": (lambda r: r.update(format_version=1), "missing_file"),
    "a-version-to-come": (lambda r: r.update(format_version=4), "unknown_version"),
    "a-key-of-its-own": (lambda r: r.update(run="rm -rf /"), "bad_recipe"),
}


@pytest.fixture
def exported(opened: Session, tmp_path: Path) -> Path:
    """A copy of what a session exports."""
    opened.planner.choose(INT4)
    finish(opened.compress())
    assert opened.copy.folder is not None
    return Path(shutil.copytree(opened.copy.folder, tmp_path / "exported"))


@pytest.mark.parametrize(("change", "key"), TAMPERED.values(), ids=TAMPERED.keys())
def test_a_recipe_that_was_changed_is_refused(exported: Path, change: Change, key: str) -> None:
    assert load_compressed(exported)
    recipe = json.loads((exported / "recipe.json").read_text())
    change(recipe)
    (exported / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(UserError) as caught:
        load_compressed(exported)
    assert caught.value.key == key


def sign(folder: Path) -> None:
    """Write the checksums of the files as they are: whoever changes a file can do that too."""
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in recipe["sha256"]}
    (folder / "recipe.json").write_text(json.dumps(recipe))


@pytest.mark.parametrize("file", [PACKED, "config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_compressed_folder_whose_file_was_changed_is_refused(exported: Path, file: str) -> None:
    """The last byte of the weights is a weight; nothing but the checksum can tell."""
    content = (exported / file).read_bytes()
    (exported / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError) as caught:
        load_compressed(exported)
    assert (caught.value.key, caught.value.values["file"]) == ("damaged_file", file)


@pytest.mark.parametrize("file", [PACKED, "recipe.json", "config.json"])
def test_a_compressed_folder_that_lacks_a_file_is_refused(exported: Path, file: str) -> None:
    (exported / file).unlink()
    with pytest.raises(CheckpointError) as caught:
        load_compressed(exported)
    assert (caught.value.key, caught.value.values["file"]) == ("missing_file", file)


def test_a_module_that_the_model_lacks_is_refused(exported: Path) -> None:
    """The recipe and the file agree with each other, but not with the model."""
    name, other = "model.layers.0.mlp.up_proj.weight", "../../../etc/passwd.weight"
    recipe = (exported / "recipe.json").read_text()
    assert name in recipe
    (exported / "recipe.json").write_text(recipe.replace(name, other))
    arrays = load_file(exported / PACKED)
    save_file({key.replace(name, other): array for key, array in arrays.items()}, exported / PACKED)
    sign(exported)
    with pytest.raises(CheckpointError) as caught:
        load_compressed(exported)
    assert caught.value.key == "tensor_no_place"


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        (config_of_another_size, "tensor_mismatch"),
        (config_with_more_layers, "tensor_missing"),
        (config_not_json, "damaged_file"),
        (architecture_unknown, "unknown_architecture"),
    ],
)
def test_a_compressed_folder_with_the_config_of_another_model_is_refused(
    exported: Path, damage: Callable[[Path], object], key: str
) -> None:
    damage(exported)
    sign(exported)
    with pytest.raises(UserError) as caught:
        load_compressed(exported)
    assert caught.value.key == key


def test_a_tensor_that_is_missing_from_a_compressed_folder_is_named(exported: Path) -> None:
    arrays = load_file(exported / PACKED)
    del arrays["model.norm.weight"]
    save_file(arrays, exported / PACKED)
    sign(exported)
    with pytest.raises(CheckpointError) as caught:
        load_compressed(exported)
    assert (caught.value.key, caught.value.values) == ("tensor_missing", {"tensor": "model.norm.weight"})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize(
    "name", ["model.layers.0.mlp.up_proj.weight.scale", "model.norm.weight"], ids=["scale", "kept"]
)
def test_numbers_of_a_compressed_folder_that_are_none_are_refused_when_it_is_opened(
    exported: Path, name: str, value: float
) -> None:
    """An evaluation would say NaN."""
    arrays = load_file(exported / PACKED)
    arrays[name].view(-1)[3] = value
    save_file(arrays, exported / PACKED)
    sign(exported)
    for read in (load_compressed, open_compressed):
        with pytest.raises(CheckpointError) as caught:
            read(exported)
        assert (caught.value.key, caught.value.values) == ("not_finite", {"tensor": name})


def compressed_recipe(folder: Path) -> Any:
    """Return the recipe of a folder that is admitted."""
    compressed_column(folder)
    return read_recipe(folder)


LIES: dict[str, tuple[Change, str]] = {
    "small": (lambda r: r.update(compressed_bytes=1), "recipe_sizes"),
    "large": (lambda r: r.update(compressed_bytes=1 << 40), "recipe_sizes"),
    "original": (lambda r: r.update(original_bytes=r["original_bytes"] + 2), "recipe_sizes"),
    "negative": (lambda r: r.update(compressed_bytes=-1), "bad_recipe"),
    "error_of_nan": (lambda r: r["weights"][0].update(relative_error=math.nan), "bad_recipe"),
    "name_without_end": (lambda r: r["weights"][0].update(name="a" * 5000), "bad_recipe"),
    "file_without_end": (lambda r: r["sha256"].update({"a" * 5000: "0"}), "missing_file"),
    "file_elsewhere": (lambda r: r["sha256"].update({"../config.json": "0"}), "missing_file"),
    "file_with_a_nul": (lambda r: r["sha256"].update({"a\0b": "0"}), "missing_file"),
    "twice": (lambda r: r["weights"].append(r["weights"][0]), "recipe_mismatch"),
}


@pytest.mark.parametrize(("change", "key"), LIES.values(), ids=LIES.keys())
def test_a_recipe_that_lies_is_refused_before_the_model_is_loaded(exported: Path, change: Change, key: str) -> None:
    recipe = json.loads((exported / "recipe.json").read_text())
    change(recipe)
    (exported / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(UserError) as caught:
        check_files(compressed_recipe(exported), exported)
    assert caught.value.key == key
    assert caught.value.sentence().isprintable()
