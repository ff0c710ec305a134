"""``export``: one object or one sentence, and a file that is whole."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from studio.base.errors import ModelError
from studio.cli.commands import app
from studio.export.targets import TARGETS
from studio.planning.choice import Choice
from studio.quantization.scheme import Mode
from studio.session.session import Session
from tests.integration.gguf.models import packed
from tests.steps import finish


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    session = Session(paths=True, workspace=tmp_path_factory.mktemp("session") / "s")
    finish(session.open(str(tiny_model("llama"))))
    session.planner.choose(Choice(Mode.INT4_SYM, 32))
    finish(session.compress())
    assert session.copy.folder is not None
    return session.copy.folder


@pytest.fixture(scope="module")
def blocks(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressed folder that GGUF holds."""
    return packed(tiny_model("llama"), tmp_path_factory.mktemp("blocks") / "b", Choice(Mode.Q8_0, 32, backup=Mode.Q8_0))


def test_it_writes_the_target_and_says_how_large(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.zip"
    result = CliRunner().invoke(app, ["export", str(folder), "--to", "studio", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "target": "studio",
        "path": str(out),
        "bytes": out.stat().st_size,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }
    assert f"{out.stat().st_size:,} bytes" in result.stderr  # told before it was written
    assert zipfile.is_zipfile(out)


def test_a_target_that_is_a_folder_is_written_where_it_was_asked_for(blocks: Path, tmp_path: Path) -> None:
    out = tmp_path / "on-a-mac"
    result = CliRunner().invoke(app, ["export", str(blocks), "--to", "mlx", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    nbytes = sum(file.stat().st_size for file in out.iterdir())
    assert json.loads(result.stdout) == {"target": "mlx", "path": str(out), "bytes": nbytes}
    assert f"{nbytes:,} bytes" in result.stderr  # told before it was written
    assert {"config.json", "model.safetensors", "README.md"} <= {file.name for file in out.iterdir()}


@pytest.mark.parametrize("words", [(), ("--no-share-fused",)], ids=["asked for nothing", "denied"])
def test_what_vllm_loads_shares_schemes_unless_denied(
    words: tuple[str, ...], tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "packed"
    asked = ["export", str(tiny_model("llama")), "--to", "compressed-tensors", "--out", str(out), "--method", "nearest"]
    mixed = ["--mode", "int4_sym", "--group-size", "32", "--backup", "none", "--pin", "*v_proj=int8_sym", "--json"]
    result = CliRunner().invoke(app, [*asked, *mixed, *words])
    assert result.exit_code == 0, result.output
    assert ("vLLM joins" in result.stderr) == bool(words)


def test_an_unknown_target_names_the_known_ones(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(folder), "--to", "x", "--out", str(tmp_path / "o"), "--json"])
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["key"] == "unknown_target"
    assert all(name in error["message"] for name in TARGETS)


def test_a_damaged_folder_is_refused_by_the_files_name(folder: Path, tmp_path: Path) -> None:
    config = folder / "config.json"
    sound = config.read_bytes()
    config.write_bytes(sound + b" ")
    try:
        result = CliRunner().invoke(app, ["export", str(folder), "--to", "studio", "--out", str(tmp_path / "o")])
    finally:
        config.write_bytes(sound)
    assert result.exit_code == 2
    assert "config.json" in result.stderr
    assert list(tmp_path.iterdir()) == []


NAMES = {
    "dots": "../../x.gguf",
    "slashes": "a/b/../../a\\b.gguf",
    "control characters": "a\x1b[31m\r\n\u202eb.gguf",
    "html": "<script>alert(1)<|script>.gguf",
    "a zero": "a\x00b.gguf",
    "10,000 characters": "x" * 10_000 + ".gguf",
    "half a character": "a\udc80b.gguf",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_strange_name_of_a_file_is_taken_or_refused_in_a_sentence(
    name: str, blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "one" / "two"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    before = set(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["export", str(blocks), "--to", "gguf", "--out", name])
    made = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    words = result.stdout + result.stderr
    assert words.replace("\n", "").isprintable()
    if result.exit_code == 0:
        assert len(made) == 1
        assert made.pop().resolve() == Path(name).resolve()
    else:
        assert result.exit_code == 2, words
        assert made == set()
        assert "log" not in words.split()


def test_it_is_compressed_anew_from_its_original_only_and_by_name(folder: Path, tmp_path: Path) -> None:
    """Of this one the recipe does not say where it is: a folder's place is nobody's business."""
    asked = ["export", str(folder), "--out", str(tmp_path / "o.gguf"), "--json", "--to"]
    result = CliRunner().invoke(app, [*asked, "gguf:q4_k_m", "--from-original"])
    assert (result.exit_code, json.loads(result.stdout)["error"]["key"]) == (2, "original_elsewhere")
    result = CliRunner().invoke(app, [*asked, "gguf:q4_k_m"])
    assert (result.exit_code, json.loads(result.stdout)["error"]["key"]) == (2, "export_chosen")


def test_its_original_is_the_commit_that_the_recipe_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def opened(_: Session, name: str, revision: str | None = None) -> None:
        asked.append((name, revision))
        raise ModelError("model_not_found", model=name)

    monkeypatch.setattr(Session, "open", opened)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    recipe = json.loads((copy / "recipe.json").read_text())
    recipe["source"] |= {"model": "owner/name", "base_model": "owner/name", "revision": "a" * 40}
    (copy / "recipe.json").write_text(json.dumps(recipe))
    words = ["export", str(copy), "--to", "gguf:q4_k_m", "--from-original", "--out", str(tmp_path / "o.gguf")]
    assert CliRunner().invoke(app, words).exit_code == 2
    assert asked == [("owner/name", "a" * 40)]


def test_a_way_of_splitting_words_is_for_gguf_alone(folder: Path, tmp_path: Path) -> None:
    asked = ["export", str(folder), "--out", str(tmp_path / "o"), "--json", "--pre-tokenizer"]
    result = CliRunner().invoke(app, [*asked, "qwen2", "--to", "studio"])
    assert (result.exit_code, json.loads(result.stdout)["error"]["key"]) == (2, "no_pre_tokenizer")


def test_one_that_is_named_is_in_the_file_and_said(blocks: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.gguf"
    asked = ["export", str(blocks), "--to", "gguf", "--out", str(out), "--pre-tokenizer"]
    result = CliRunner().invoke(app, [*asked, "nothing", "--json"])
    assert (result.exit_code, json.loads(result.stdout)["error"]["key"]) == (2, "unknown_pre_tokenizer")
    assert list(tmp_path.iterdir()) == []
    result = CliRunner().invoke(app, [*asked, "qwen2"])
    assert result.exit_code == 0, result.output
    assert "qwen2" in result.stderr
    assert b"qwen2" in out.read_bytes()


def test_what_the_target_cannot_hold_is_told_before_the_work(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "compress", None)
    source = Path(shutil.copytree(tiny_model("llama"), tmp_path / "source"))
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": "[a-f]+"}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, tokenizer["pre_tokenizer"]]}
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    asked = ["export", str(source), "--method", "nearest", "--out", str(tmp_path / "o.gguf"), "--json", "--to"]
    result = CliRunner().invoke(app, [*asked, "gguf:q8_0"])
    assert (result.exit_code, json.loads(result.stdout)["error"]["key"]) == (2, "to_gguf_pre_tokenizer")
    result = CliRunner().invoke(app, [*asked, "gguf", "--mode", "nf4"])
    assert (result.exit_code, json.loads(result.stdout)["error"]["key"]) == (2, "to_gguf_scheme")


def test_a_folder_holds_what_is_shared_with_the_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    result = CliRunner().invoke(app, ["export", str(folder), "--to", "studio", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    files = {path.name for path in out.iterdir()}
    assert {"README.md", "map.png", "recipe.json", "manifest.json"} < files
    assert json.loads(result.stdout)["bytes"] == sum(path.stat().st_size for path in out.iterdir())


@pytest.mark.parametrize("to", [("studio", "studio"), ("gguf:q4_0", "studio:q8_0")])
def test_what_cannot_be_of_one_model_is_refused(folder: Path, tmp_path: Path, to: tuple[str, str]) -> None:
    words = [part for each in to for part in ("--to", each)]
    result = CliRunner().invoke(app, ["export", str(folder), *words, "--out", str(tmp_path / "o"), "--json"])
    assert json.loads(result.stdout)["error"]["key"] == "export_twice"
    assert list(tmp_path.iterdir()) == []


def test_a_license_that_forbids_it_is_said(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    recipe = json.loads((copy / "recipe.json").read_text())
    recipe["source"]["license"] = {"id": "cc-by-nc-nd-4.0", "name": ""}
    (copy / "recipe.json").write_text(json.dumps(recipe))
    result = CliRunner().invoke(app, ["export", str(copy), "--to", "studio", "--out", str(tmp_path / "o.zip")])
    assert result.exit_code == 0, result.output
    assert "cc-by-nc-nd-4.0" in result.stderr


def test_help_names_every_target() -> None:
    words = CliRunner().invoke(app, ["export", "--help"], terminal_width=400).stdout
    assert all(name in words for name in TARGETS)
