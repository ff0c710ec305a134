"""A recipe makes the same files again, to the bit; without what it was made from it says what is missing."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.base.errors import CheckpointError, ModelError, TextError
from studio.checkpoint.recipe import RECIPE, read_recipe, recipe_of
from studio.session.opened_recipe import open_recipe
from studio.session.rebuild import differences, reasons, rebuilt
from studio.session.session import Session
from tests.steps import finish
from tests.terminal import assert_refused, run

TinyModel = Callable[[str], Path]
GGUF = ("--to", "gguf:Q4_K_M", "--method", "nearest")


def contents(place: Path) -> dict[str, str]:
    """Return the checksum of every file."""
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "mine.txt"
    file.write_text("The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 80)
    return file


@pytest.mark.parametrize(
    "options",
    [
        ("--mode", "int4_asym", "--group-size", "32", "--ratio", "0.6", "--backup", "int8_sym"),
        ("--mode", "nf4", "--group-size", "32", "--pin", "*.0.*o_proj=none", "--method", "half_quadratic"),
        ("--mix", "q4_k_m"),
    ],
    ids=["a ratio", "pins", "a mix"],
)
def test_a_folder_is_made_again_file_by_file(tiny_model: TinyModel, tmp_path: Path, options: tuple[str, ...]) -> None:
    model = tiny_model("llama")
    assert run("compress", model, *options, "--out", tmp_path / "first").code == 0
    answer = run("apply", tmp_path / "first", "--source", model, "--out", tmp_path / "again", "--json")
    assert answer.code == 0, answer
    assert answer.json["same"] is True
    assert contents(tmp_path / "again") == contents(tmp_path / "first")  # card and recipe, too


@pytest.mark.parametrize("given", ["builtin", "generated", "mine.txt"])
@pytest.mark.parametrize("method", ["gptq", "best"])
def test_so_is_a_calibrated_one(tiny_model: TinyModel, tmp_path: Path, text: Path, given: str, method: str) -> None:
    model = tiny_model("llama")
    calibrate = text if given == "mine.txt" else given
    options = ("--mode", "int4_sym", "--group-size", "32", "--method", method)
    first, again = tmp_path / "first", tmp_path / "again"
    assert run("compress", model, *options, "--calibrate", calibrate, "--out", first).code == 0
    named = ("--calibrate", text) if given == "mine.txt" else ()
    answer = run("apply", first / RECIPE, "--source", model, *named, "--out", again)
    assert answer.code == 0, answer
    assert contents(again) == contents(first)


def test_files_for_other_programs_are_made_again(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = tiny_model("llama")
    first, again = tmp_path / "first", tmp_path / "again"
    assert run("export", model, *GGUF, "--to", "studio", "--out", first).code == 0
    assert {path.suffix for path in first.iterdir()} == {".gguf", ".zip", ".md", ".png", ".json"}
    answer = run("apply", first / RECIPE, "--source", model, "--out", again, "--json")
    assert answer.code == 0, answer
    assert contents(again) == contents(first)
    assert answer.json["targets"] == ["gguf", "studio"]


def test_a_single_file_is_made_again_by_the_recipe_beside_it(tiny_model: TinyModel, tmp_path: Path) -> None:
    model, first, again = tiny_model("llama"), tmp_path / "first.gguf", tmp_path / "again.gguf"
    assert run("export", model, *GGUF, "--card", "--out", first).code == 0
    assert run("apply", f"{first}.recipe.json", "--source", model, "--out", again).code == 0
    assert first.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.gguf", "first.gguf", "first.gguf.README.md", "first.gguf.recipe.json",
    ]  # fmt: skip


def test_a_way_of_splitting_words_that_was_named_is_in_the_recipe(tiny_model: TinyModel, tmp_path: Path) -> None:
    model, first, again = tiny_model("llama"), tmp_path / "first", tmp_path / "again"
    assert run("export", model, *GGUF, "--pre-tokenizer", "qwen2", "--out", first).code == 0
    assert run("apply", first / RECIPE, "--source", model, "--out", again).code == 0
    assert contents(again) == contents(first)
    assert all(b"qwen2" in file.read_bytes() for file in (*first.glob("*.gguf"), *again.glob("*.gguf")))


@pytest.mark.real
def test_the_built_in_model_needs_no_name(tmp_path: Path) -> None:
    made = run("compress", "builtin", "--group-size", "32", "--mode", "int4_sym", "--out", tmp_path / "first")
    assert made.code == 0, made
    assert run("apply", tmp_path / "first", "--out", tmp_path / "again").code == 0
    assert contents(tmp_path / "again") == contents(tmp_path / "first")


@pytest.fixture
def made(tiny_model: TinyModel, tmp_path: Path, text: Path) -> Path:
    folder = tmp_path / "made"
    options = ("--mode", "int4_sym", "--group-size", "32", "--method", "gptq", "--calibrate", text)
    assert run("compress", tiny_model("llama"), *options, "--out", folder).code == 0
    return folder


def test_what_is_missing_is_asked_for(tiny_model: TinyModel, made: Path, text: Path, tmp_path: Path) -> None:
    model, out = tiny_model("llama"), tmp_path / "again"
    assert_refused(run("apply", made, "--out", out, "--json"), "recipe_needs_model")
    assert_refused(run("apply", made, "--source", model, "--out", out, "--json"), "recipe_needs_text")
    text.write_text(text.read_text().replace("fox", "cat"))
    told = run("apply", made, "--source", model, "--calibrate", text, "--out", out, "--json")
    assert_refused(told, "recipe_other_text")
    assert not out.exists()


def test_another_model_is_refused_before_the_work(
    tiny_model: TinyModel, made: Path, text: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_model("llama"), tmp_path / "other"))
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    told = run("apply", made, "--source", other, "--calibrate", text, "--out", tmp_path / "again", "--json")
    assert_refused(told, "recipe_source")
    assert not (tmp_path / "again").exists()


def test_an_older_recipe_is_applied_as_far_as_it_tells(
    tiny_model: TinyModel, made: Path, tmp_path: Path, text: Path
) -> None:
    """Without checksums of the source, with the calibration as words."""
    recipe = json.loads((made / RECIPE).read_text())
    told = recipe["choices"]["calibration"]
    words = f"{told['text']}: {told['windows']} x {told['window']} tokens, {told['digest']}"
    recipe["choices"]["calibration"] = words
    recipe["format_version"] = 2
    del recipe["source"]["files"], recipe["machine"], recipe["exports"]
    (tmp_path / "old.json").write_text(json.dumps(recipe))
    assert str(recipe_of(tmp_path / "old.json").choices.calibration) == words
    again = tmp_path / "again"
    named = ("--source", tiny_model("llama"), "--calibrate", text)
    assert run("apply", tmp_path / "old.json", *named, "--out", again).code == 0
    assert contents(again)["weights.studio"] == contents(made)["weights.studio"]


def test_what_differs_is_kept_and_said(tiny_model: TinyModel, made: Path, text: Path, tmp_path: Path) -> None:
    recipe = json.loads((made / RECIPE).read_text())
    recipe["sha256"]["weights.studio"] = "0" * 64
    recipe["versions"]["torch"] = "1.0"
    recipe["machine"]["threads"] = 1
    (tmp_path / "other.json").write_text(json.dumps(recipe))
    again = tmp_path / "again"
    named = ("--source", tiny_model("llama"), "--calibrate", text)
    told = run("apply", tmp_path / "other.json", *named, "--out", again, "--json")
    assert_refused(told, "apply_differs")
    assert "weights.studio" in told.json["error"]["message"]
    assert "torch 1.0" in told.json["error"]["message"]
    assert (again / "weights.studio").is_file()
    assert read_recipe(again).machine == recipe_of(tmp_path / "other.json").machine  # as many threads as were told


def test_a_session_takes_a_recipe_s_choices(tiny_model: TinyModel, made: Path, tmp_path: Path) -> None:
    session = Session(paths=True, workspace=tmp_path / "workspace")
    try:
        with pytest.raises(ModelError) as caught:
            finish(open_recipe(session, made / RECIPE))
        assert caught.value.key == "recipe_needs_model"
        finish(session.open(str(tiny_model("llama"))))
        opened = finish(open_recipe(session, made / RECIPE))
        assert opened.text == "mine.txt"
        assert (session.choice.mode.value, session.choice.group_size, str(session.choice.method)) == (
            "int4_sym", 32, "gptq",
        )  # fmt: skip
        assert session.plan is not None
        schemes = {a.layer.name: str(a.scheme) for a in session.plan.assignments if a.scheme is not None}
        assert schemes == {weight.name: weight.scheme for weight in opened.recipe.weights}
        (tmp_path / "none.json").write_text("{}")
        with pytest.raises(CheckpointError):
            finish(open_recipe(session, tmp_path / "none.json"))
        assert str(session.choice.method) == "gptq"
    finally:
        session.close()


def test_tokens_that_a_recipe_holds_are_checked(tiny_model: TinyModel, tmp_path: Path) -> None:
    model, first = tiny_model("llama"), tmp_path / "first"
    options = ("--mode", "int4_sym", "--group-size", "32", "--method", "gptq", "--calibrate", "generated")
    assert run("compress", model, *options, "--out", first).code == 0
    recipe = recipe_of(first / RECIPE)
    assert recipe.choices.calibration is not None
    rows = recipe.choices.calibration.tokens
    assert len(rows) == recipe.choices.calibration.windows
    session = Session(paths=True, workspace=tmp_path / "workspace")
    try:
        for tokens, kind in (
            ((rows[0], rows[1][:-1]), CheckpointError),
            (((1 << 31,),), CheckpointError),
            (rows[:1], TextError),
        ):
            calibration = recipe.choices.calibration.model_copy(update={"tokens": tokens})
            choices = recipe.choices.model_copy(update={"calibration": calibration})
            with pytest.raises(kind):
                finish(rebuilt(session, recipe.model_copy(update={"choices": choices}), str(model)))
        finish(rebuilt(session, recipe, str(model)))
        assert session.copy.folder is not None
        assert differences(recipe, session.copy.folder) == []
        assert recipe.machine is not None
        assert reasons(recipe, recipe.machine.threads) == []
    finally:
        session.close()
