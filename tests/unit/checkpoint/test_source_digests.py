"""What a model was read from is told by checksums: computed once, and again when a file changes."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.base import json_cache
from studio.base.errors import CheckpointError
from studio.checkpoint import source_digests as module
from studio.checkpoint.open_model import open_model
from studio.checkpoint.recipe import Source
from studio.checkpoint.source_digests import check_source, source_digests, source_files
from tests.steps import finish


@pytest.fixture
def model(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "tiny"))
    (folder / "README.md").write_text("a card says nothing of the weights")
    (folder / "notes.py").write_text("neither does code")
    return folder


def test_every_file_that_is_read_is_there_and_no_other(model: Path) -> None:
    digests = finish(source_digests(finish(open_model(str(model), True))))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(digests)
    assert not {"README.md", "notes.py"} & set(digests)
    for name, digest in digests.items():
        assert digest == hashlib.sha256((model / name).read_bytes()).hexdigest()


def test_a_large_file_is_read_once(model: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 0)
    checkpoint = finish(open_model(str(model), True))
    first = finish(source_digests(checkpoint))
    monkeypatch.setattr(module, "_digest", None)  # reading it again would fail
    assert finish(source_digests(checkpoint)) == first
    monkeypatch.undo()
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "model.safetensors").write_bytes(content)
    os.utime(model / "model.safetensors", ns=(1, 1))
    assert finish(source_digests(checkpoint))["model.safetensors"] != first["model.safetensors"]


def test_what_is_kept_is_not_believed_blindly(model: Path, own_cache: Path) -> None:
    checkpoint = finish(open_model(str(model), True))
    file = model / "config.json"
    json_cache.keep(module._memory(file), {"no": "digest"})
    assert finish(source_digests(checkpoint))["config.json"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_hub_s_cache_names_a_file_by_its_checksum(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / ("a" * 64)
    blob.parent.mkdir()
    blob.write_text("x")
    (tmp_path / "snapshots").mkdir()
    link = tmp_path / "snapshots" / "model.safetensors"
    link.symlink_to(blob)
    assert module._kept_name(link) == "a" * 64
    assert module._kept_name(blob) is None
    (tmp_path / "blobs" / ("b" * 40)).write_text("x")  # a small file, by git's checksum
    other = tmp_path / "snapshots" / "config.json"
    other.symlink_to(tmp_path / "blobs" / ("b" * 40))
    assert module._kept_name(other) is None


@pytest.mark.real
def test_the_built_in_model_is_its_gguf_file() -> None:
    checkpoint = finish(open_model("builtin", False))
    assert [file.suffix for file in source_files(checkpoint)] == [".gguf"]


def test_another_file_is_named() -> None:
    source = Source(model="m", revision="1", format="BF16", files={"a": "0" * 64, "b": "1" * 64})
    check_source(source, {"a": "0" * 64, "b": "1" * 64, "c": "2" * 64})
    for digests in ({"a": "0" * 64}, {"a": "0" * 64, "b": "0" * 64}):
        with pytest.raises(CheckpointError) as caught:
            check_source(source, digests)
        assert (caught.value.key, caught.value.values["file"]) == ("recipe_source", "b")
