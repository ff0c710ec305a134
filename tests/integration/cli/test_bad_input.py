"""What the terminal says when it cannot: one sentence, exit 1, nothing on stdout."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.base.text import text
from studio.checkpoint import open_model
from tests.terminal import QUESTION, TinyModel, assert_refused, names, run


@pytest.fixture
def damaged(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy of a tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "damaged"))


@pytest.mark.parametrize("command", ["estimate", "compress", "chat"])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("owner/no-such-model", "hub_unreachable"),
        ("no such model", "bad_model_name"),
        ("/no/such/folder", "bad_model_name"),
        ("", "bad_model_name"),
        ("x" * 5000, "bad_model_name"),
        ("~nobody-of-that-name/x", "bad_model_name"),
    ],
    ids=["unreachable", "malformed", "no-folder", "empty", "too-long", "no-user"],
)
def test_an_unknown_model(tmp_path: Path, command: str, name: str, key: str) -> None:
    more = {"estimate": (), "compress": ("--out", tmp_path / "out"), "chat": ("--prompt", QUESTION)}[command]
    assert_refused(run(command, name, *more, "--json"), key)
    assert names(tmp_path) == set()


def without_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1000)


def cut_in_header(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def empty_file(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 0)


def corrupt_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[8:40] = b"\xff" * 32
    file.write_bytes(content)


def endless_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes((1 << 62).to_bytes(8, "little") + file.read_bytes()[8:])


DAMAGES = [
    (without_safetensors, "only_pickles"),
    (without_config, "missing_file"),
    *((damage, "damaged_file") for damage in (cut_short, cut_in_header, empty_file, corrupt_header, endless_header)),
]


@pytest.mark.parametrize(("damage", "key"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_a_damaged_folder(damaged: Path, tmp_path: Path, damage: Callable[[Path], None], key: str) -> None:
    damage(damaged)
    before = names(tmp_path)
    assert_refused(run("compress", damaged, "--out", tmp_path / "a" / "out", "--json"), key)
    assert_refused(run("chat", damaged, "--prompt", QUESTION, "--json"), key)
    assert names(tmp_path) == before


def test_a_compressed_folder_cut_short(tiny_model: TinyModel, tmp_path: Path) -> None:
    run("compress", tiny_model("llama"), "--out", tmp_path / "out")
    weights = tmp_path / "out" / "weights.studio"
    os.truncate(weights, weights.stat().st_size - 1000)
    assert_refused(run("chat", tmp_path / "out", "--prompt", QUESTION, "--json"), "damaged_file")


@pytest.mark.real
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_gguf_file_cut_short(tmp_path: Path, share: float) -> None:
    whole, cut = open_model.builtin_file(), tmp_path / "cut.gguf"
    assert whole is not None
    with whole.open("rb") as file:
        cut.write_bytes(file.read(int(share * whole.stat().st_size)))
    assert_refused(run("estimate", cut, "--json"), "damaged_file")


def test_a_gguf_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "words.gguf").write_text("words")
    assert_refused(run("estimate", tmp_path / "words.gguf", "--json"), "gguf_no_magic")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("words")
    assert_refused(run("estimate", tmp_path / "words.txt", "--json"), "not_a_model")


@pytest.mark.parametrize(
    ("choices", "key"),
    [
        (("--group-size", "48"), "unknown_group_size"),
        (("--group-size", "256"), "group_size_misfit"),
        (("--group-size", "0"), "unknown_group_size"),
        (("--group-size", "-2"), "unknown_group_size"),
        (("--ratio", "0"), "ratio_range"),
        (("--ratio", "2"), "ratio_range"),
        (("--ratio", "-1"), "ratio_range"),
        (("--ratio", "nan"), "ratio_range"),
        (("--mode", "int3"), "unknown_mode"),
        (("--backup", "int4_asym"), "unknown_backup"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, tuple) else value,
)
def test_a_choice_that_cannot_be(tiny_model: TinyModel, tmp_path: Path, choices: tuple[str, ...], key: str) -> None:
    model = tiny_model("llama")
    assert_refused(run("estimate", model, *choices, "--json"), key)
    assert_refused(run("compress", model, *choices, "--out", tmp_path / "a" / "out", "--json"), key)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("prompt", ["", "  \n"], ids=["empty", "blank"])
def test_a_prompt_with_nothing_in_it(tiny_model: TinyModel, prompt: str) -> None:
    assert_refused(run("chat", tiny_model("llama"), "--prompt", prompt, "--json"), "empty_prompt")


def test_a_prompt_longer_than_the_context(tiny_model: TinyModel) -> None:
    assert_refused(run("chat", tiny_model("llama"), "--prompt", "one " * 1000, "--json"), "prompt_too_long")


def test_a_target_with_files_in_it(tiny_model: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert_refused(run("compress", tiny_model("llama"), "--out", tmp_path, "--json"), "folder_not_empty")
    assert names(tmp_path) == {"notes.txt"}


@pytest.mark.parametrize("place", ["notes.txt", "notes.txt/out", "new/" + "x" * 300])
def test_a_target_that_cannot_be_written(tiny_model: TinyModel, tmp_path: Path, place: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert_refused(run("compress", tiny_model("llama"), "--out", tmp_path / place, "--json"), "cannot_write")
    assert names(tmp_path) == {"notes.txt"}


def test_a_sentence_without_json_is_alone(tmp_path: Path) -> None:
    answer = run("estimate", "no such model")
    assert answer.code == 2
    assert answer.stdout == ""
    assert answer.stderr.splitlines()[-1] == text("error.bad_model_name", model="no such model")
