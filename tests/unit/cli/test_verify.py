"""``verify``: a right file's figures, and for any other one true sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from studio.base.settings import settings
from studio.cli.commands import app
from studio.export.compressed_model import opened
from studio.export.gguf.same import compared
from studio.export.targets import TARGETS, export
from tests.integration.gguf.models import edited, packed, save
from tests.steps import finish

Pair = tuple[Path, Path]
"""A compressed folder, and the file that was written from it."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    place = tmp_path_factory.mktemp("verify")
    folder = packed(save("llama", place / "source"), place / "packed")
    return folder, finish(export(TARGETS["gguf"], folder, place / "right.gguf"))


@pytest.fixture(autouse=True)
def without_llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_NODE_LLAMA", str(tmp_path / "nowhere"))
    settings.cache_clear()


def verify(file: Path, folder: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["verify", str(file), "--against", str(folder), *more])


def test_a_right_file_passes_and_what_was_left_out_is_said(pair: Pair, own_cache: Path) -> None:
    folder, file = pair
    result = verify(file, folder)
    assert result.exit_code == 0, result.output
    assert "byte for byte" in result.stdout
    assert "llama.cpp was not tried" in result.stderr
    result = verify(file, folder, "--json")
    facts = json.loads(result.stdout)
    assert facts["tensors"] == len(gguf.GGUFReader(file).tensors)
    assert facts["tokens"] > 40
    assert facts["reader"]["kld"]["mean"] < 1e-3  # its numbers in 16 bits
    assert 0 <= facts["reader"]["kld"]["mean"] <= facts["reader"]["kld"]["max"]
    assert facts["reader"]["logit_difference"] < 0.5
    assert facts["answer"]
    assert facts["llama_cpp"] is None


def written_over(file: Path, name: str, change: Callable[[bytearray], None]) -> None:
    """Change the bytes of one tensor."""
    [tensor] = [each for each in gguf.GGUFReader(file).tensors if each.name == name]
    with file.open("r+b") as stream:
        stream.seek(tensor.data_offset)
        held = bytearray(stream.read(tensor.n_bytes))
        change(held)
        stream.seek(tensor.data_offset)
        stream.write(held)


def flip(held: bytearray) -> None:
    held[len(held) // 2] ^= 1


def unpermute(held: bytearray) -> None:
    """Put the rows of 8 heads into transformers' order again."""
    rows = torch.frombuffer(held, dtype=torch.uint8).view(8, 16, 2, -1)
    held[:] = bytes(rows.transpose(1, 2).contiguous().numpy().tobytes())


def cut(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 5000)


def replaced(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert content.count(old) >= 1
    assert len(old) == len(new)
    file.write_bytes(content.replace(old, new, 1))


def faster(file: Path) -> None:
    """Say another base of rotations."""
    field = gguf.GGUFReader(file, "r+").fields["llama.rope.freq_base"]
    field.parts[field.data[0]][0] = 5e4


WRONG: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a flipped bit of a block": (
        lambda file: written_over(file, "blk.1.ffn_up.weight", flip), "verify_tensor", "ffn_up",
    ),
    "a flipped bit of a norm": (
        lambda file: written_over(file, "output_norm.weight", flip), "verify_tensor", "output_norm",
    ),
    "rows in another order": (
        lambda file: written_over(file, "blk.0.attn_q.weight", unpermute), "verify_tensor", "attn_q",
    ),
    "cut short": (cut, "damaged_file", "wrong.gguf"),
    "no model": (lambda file: file.write_text("no model"), "gguf_no_magic", "wrong.gguf"),
    "gone": (lambda file: file.unlink(), "missing_file", "wrong.gguf"),
    "another rotation": (faster, "verify_setting", "rope.freq_base"),
    "another split of words": (
        lambda file: replaced(file, b"gpt-2", b"qwen2"), "verify_tokenizer", "tokenizer.ggml.pre",
    ),
    "another token": (lambda file: replaced(file, b"<pad>", b"<bad>"), "verify_tokenizer", "tokenizer.ggml.tokens"),
}  # fmt: skip


@pytest.mark.parametrize("damage", WRONG)
def test_a_wrong_file_fails_with_what_is_wrong(damage: str, pair: Pair, tmp_path: Path, own_cache: Path) -> None:
    folder, right = pair
    file = Path(shutil.copy(right, tmp_path / "wrong.gguf"))
    change, key, words = WRONG[damage]
    change(file)
    result = verify(file, folder, "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["key"] == key
    assert words in error["message"]
    assert "\n" not in error["message"]


def test_another_model_s_file_is_told_from_its_own(pair: Pair, tmp_path: Path, own_cache: Path) -> None:
    folder, _ = pair
    others = {"qwen3": "verify_family", "llama-tied": "verify_layout", "llama": "verify_tensor"}
    for case, key in others.items():
        source = save(case, tmp_path / f"{case}-source")
        weights = load_file(source / "model.safetensors")
        weights["model.layers.1.mlp.up_proj.weight"] *= -1
        save_file(weights, source / "model.safetensors", {"format": "pt"})
        other = packed(source, tmp_path / case)
        result = verify(finish(export(TARGETS["gguf"], other, tmp_path / f"{case}.gguf")), folder, "--json")
        assert (result.exit_code, json.loads(result.stdout)["error"]["key"]) == (2, key), case


def test_a_file_with_a_named_way_of_splitting_words_is_compared_by_it(pair: Pair, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair[0], tmp_path / "folder"))
    edited(folder, "tokenizer.json", lambda file: file.update(normalizer={"type": "Lowercase"}))
    edited(folder, "recipe.json", lambda recipe: recipe.update(sha256={}))
    target = TARGETS["gguf"].with_pre_tokenizer
    assert target is not None
    file = finish(export(target("qwen2"), folder, tmp_path / "named.gguf"))
    assert b"qwen2" in file.read_bytes()
    assert finish(compared(file, opened(folder))) == len(gguf.GGUFReader(file).tensors)
