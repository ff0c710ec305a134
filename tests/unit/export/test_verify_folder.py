"""A folder for another program has its folder's numbers, byte for byte and as read here; else one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.base.errors import CheckpointError, UserError
from studio.checkpoint.headers import read_header
from studio.export.targets import TARGETS, export
from studio.export.verify_folder import FORMS, verified
from studio.planning.choice import Choice
from tests.integration.gguf.models import packed
from tests.steps import finish
from tests.terminal import assert_refused, run

CODES = {"mlx": "0.mlp.up_proj.weight", "compressed-tensors": "weight_packed"}
CHOICE = Choice.of(mode="int4_sym", group_size=32, backup="none")


@pytest.fixture(scope="module")
def compressed(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tiny_model("llama"), tmp_path_factory.mktemp("folders") / "packed", CHOICE)


@pytest.fixture(scope="module", params=list(FORMS))
def written(compressed: Path, request: pytest.FixtureRequest) -> Path:
    place = compressed.with_name(request.param)
    return place if place.exists() else finish(export(TARGETS[request.param], compressed, place))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / written.name))


def test_a_sound_folder_is_the_same(written: Path, compressed: Path) -> None:
    done = finish(verified(written, compressed))
    assert done.tensors == len(read_header(written / "model.safetensors"))
    assert done.reader.mean < 1e-4  # read into 16 bits
    assert done.llama_cpp is None
    assert done.answer


def flipped(folder: Path, name: str) -> None:
    """Change the last bit of a tensor."""
    file = folder / "model.safetensors"
    entry = next(entry for each, entry in read_header(file).items() if each.endswith(name))
    content = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    end = entry.end if entry.start >= header else entry.end + header
    content[end - 1] ^= 1
    file.write_bytes(content)


def shorter(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def other_groups(folder: Path) -> None:
    words = (folder / "config.json").read_text()
    (folder / "config.json").write_text(words.replace('"group_size": 32', '"group_size": 64'))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda folder: flipped(folder, "norm.weight"), "verify_tensor"),
        (lambda folder: flipped(folder, CODES[folder.name]), "verify_tensor"),
        (shorter, "verify_layout"),
        (other_groups, "verify_setting"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "verify_tokenizer"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "missing_file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "missing_file"),
        (lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "llama"})), "verify_what"),
        (lambda folder: (folder / "config.json").unlink(), "verify_what"),
    ],
    ids=["norm", "codes", "shorter", "settings", "tokenizer", "no tokenizer", "no weights", "no form", "no config"],
)  # fmt: skip
def test_another_folder_is_named(change: Callable[[Path], object], key: str, folder: Path, compressed: Path) -> None:
    change(folder)
    with pytest.raises(CheckpointError) as refused:
        finish(verified(folder, compressed))
    assert refused.value.key == key


def test_a_card_may_say_anything(folder: Path, compressed: Path) -> None:
    (folder / "README.md").write_text("mine")
    assert finish(verified(folder, compressed)).tensors


def test_of_another_folder_it_is_refused(written: Path, tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    other = packed(tiny_model("llama"), tmp_path / "other", Choice.of(mode="int8_sym", pins=["*embed*=none"]))
    with pytest.raises(UserError):
        finish(verified(written, other))


def test_the_terminal_reads_folders_too(compressed: Path, written: Path, tmp_path: Path) -> None:
    answer = run("verify", written, "--against", compressed, "--json")
    assert answer.code == 0
    assert answer.json["llama_cpp"] is None
    assert "llama.cpp" not in answer.stderr
    assert_refused(run("verify", tmp_path, "--against", compressed, "--json"), "verify_what")
