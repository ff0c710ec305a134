"""Which files a model's weights are in, why there are none, and that no link leads out of its folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.base.errors import UserError
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.file_names import INDEX, WEIGHTS

TinyModel = Callable[[str], Path]
PART = "model-{}-of-2.safetensors"


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "model"))


@pytest.fixture
def shards(folder: Path) -> Path:
    """The model in two files, with an index."""
    plain = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(plain)
    parts = {PART.format(1): names[:5], PART.format(2): names[5:]}
    for file, held in parts.items():
        save_file({name: plain[name] for name in held}, folder / file)
    write_index(folder, {name: file for file, held in parts.items() for name in held})
    return folder


def write_index(folder: Path, shard_of: object) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": shard_of}))


def refusal(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        of_folder(folder)
    return caught.value


def without_weights(folder: Path, file: str, content: bytes = b"") -> Path:
    (folder / WEIGHTS).unlink()
    (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "key", "named"),
    [
        ("adapter_config.json", b'{"base_model_name_or_path": "owner/base"}', "adapter_only", "owner/base"),
        ("adapter_config.json", b"{}", "adapter_only", "?"),
        ("model-00001-of-00002.safetensors", b"", "no_index", "model-00001-of-00002.safetensors"),
        ("model.gguf", b"GGUF", "gguf_in_folder", "model.gguf"),
        ("pytorch_model.bin", b"", "only_pickles", "pytorch_model.bin"),
        ("notes.txt", b"", "no_safetensors", "model"),
    ],
    ids=["adapter", "adapter_of_nothing", "shards_without_index", "gguf", "pickle", "nothing"],
)
def test_why_there_are_no_weights(folder: Path, file: str, content: bytes, key: str, named: str) -> None:
    found = refusal(without_weights(folder, file, content))
    assert found.key == key
    assert named in found.sentence()


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "a" * 5000, "a\0.safetensors", "\x1b[2J", 5, None, ["x"]], ids=repr
)
def test_an_index_names_files_of_the_folder(shards: Path, shard: object) -> None:
    shard_of = json.loads((shards / INDEX).read_text())["weight_map"]
    write_index(shards, shard_of | {"model.norm.weight": shard})
    found = refusal(shards)
    assert found.key in ("bad_index", "missing_file")
    assert found.sentence().isprintable()
    assert len(found.sentence()) < 400


def test_a_shard_that_is_missing_is_named(shards: Path) -> None:
    (shards / PART.format(2)).unlink()
    assert refusal(shards).values == {"file": PART.format(2)}


@pytest.mark.parametrize("shard_of", [None, [], {}, 5])
def test_an_index_without_a_map_says_so(shards: Path, shard_of: object) -> None:
    write_index(shards, shard_of)
    assert refusal(shards).key == "index_without_map"


def test_tensors_are_read_where_they_are_not_where_the_index_says(shards: Path) -> None:
    shard_of = json.loads((shards / INDEX).read_text())["weight_map"]
    expected = of_folder(shards)
    write_index(shards, dict(zip(shard_of, reversed(shard_of.values()), strict=True)) | {"gone.weight": PART.format(1)})
    found = of_folder(shards)
    assert found.layers == expected.layers
    for layer in found.layers:
        assert torch.equal(found.read(layer), expected.read(layer))


def test_a_tensor_in_two_shards_is_named(shards: Path) -> None:
    both = load_file(shards / PART.format(1)) | {"model.norm.weight": torch.zeros(64)}
    save_file(both, shards / PART.format(1))
    found = refusal(shards)
    assert (found.key, found.values["tensor"]) == ("tensor_twice", "model.norm.weight")


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "README.md"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    """What it leads to would be copied into the export."""
    outside = tmp_path / "secret"
    outside.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    found = refusal(folder)
    assert (found.key, found.values) == ("link_out", {"file": name})


def test_links_within_the_folder_and_to_the_folder_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "weights").mkdir()
    (folder / WEIGHTS).rename(folder / "weights" / "blob")
    (folder / WEIGHTS).symlink_to(Path("weights") / "blob")
    (tmp_path / "link").symlink_to(folder)
    assert of_folder(tmp_path / "link").layers


def test_a_snapshot_of_the_hubs_cache_is_read_through_its_links(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    folder.rename(repository / "blobs")
    for blob in (repository / "blobs").iterdir():
        (snapshot / blob.name).symlink_to(Path("../../blobs") / blob.name)
    assert of_folder(snapshot).layers
    (snapshot / "README.md").symlink_to(tmp_path / "link")
    (tmp_path / "link").write_text("secret")
    assert refusal(snapshot).key == "link_out"
