"""``python -m studio compress``: what is written is what was estimated."""

from pathlib import Path

import pytest

from studio.checkpoint.recipe import read_recipe
from tests.conftest import ARCHITECTURES
from tests.terminal import TinyModel, names, run, tensor_bytes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "choices",
    [("--mode", "int8_sym"), ("--ratio", "0.5", "--group-size", "32"), ("--mode", "nf4", "--backup", "none")],
    ids=["int8_sym", "int4_asym-g32-0.5", "nf4-none"],
)
def test_what_is_written_is_what_was_estimated(
    tiny_model: TinyModel, tmp_path: Path, architecture: str, choices: tuple[str, ...]
) -> None:
    model, out = tiny_model(architecture), tmp_path / "out"
    estimated = run("estimate", model, *choices, "--json").json
    facts = run("compress", model, *choices, "--out", out, "--json").json
    errors = [layer.pop("relative_error") for layer in facts["layers"]]
    assert facts["path"] == str(out)
    assert facts["seconds"] > 0
    assert {key: facts[key] for key in estimated} == estimated
    assert facts["compressed_bytes"] == tensor_bytes(out / "weights.studio")
    for layer, error in zip(facts["layers"], errors, strict=True):
        assert (error is None) == (layer["scheme"] == "float16")
        assert error is None or 0 < error < 0.3
    assert read_recipe(out).compressed_bytes == facts["compressed_bytes"]
    assert names(tmp_path) == {"out", *(f"out/{path.name}" for path in out.iterdir())}


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tiny_model: TinyModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    before = out.stat().st_ino
    assert run("compress", tiny_model("llama"), "--out", out).code == 0
    assert out.stat().st_ino == before
    assert names(tmp_path) == {"out", *(f"out/{path.name}" for path in out.iterdir())}
    assert read_recipe(out)


def test_folders_above_the_target_are_made(tiny_model: TinyModel, tmp_path: Path) -> None:
    assert run("compress", tiny_model("llama"), "--out", tmp_path / "a" / "b" / "out").code == 0
    assert read_recipe(tmp_path / "a" / "b" / "out")


def test_a_compressed_folder_is_no_model_to_compress(tiny_model: TinyModel, tmp_path: Path) -> None:
    run("compress", tiny_model("llama"), "--out", tmp_path / "out")
    before = names(tmp_path)
    answer = run("compress", tmp_path / "out", "--out", tmp_path / "again", "--json")
    assert answer.code == 2
    assert names(tmp_path) == before
