"""What the terminal answers about surveys, pins and misfits, and that a killed compression is taken up again."""

import json
import re
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.base.settings import settings
from studio.base.text import text
from studio.checkpoint.checkpoint import Checkpoint
from studio.cli.commands import app
from studio.planning import sampled_survey
from studio.planning.choice import MAX_PINS
from studio.quantization.scheme import Mode, Scheme
from studio.session.session import Session
from tests.conftest import save_tiny_model
from tests.terminal import assert_refused, names, run, run_process

TinyModel = Callable[[str], Path]
FACTS = {"model", "revision", "architecture", "source_format", "source_bytes", "part", "can_chat"}
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def by_name(facts: dict[str, Any]) -> dict[str, Any]:
    return {layer["name"]: layer for layer in facts["layers"]}


def schemes(facts: dict[str, Any]) -> dict[str, str]:
    return {layer["name"]: layer["scheme"] for layer in facts["layers"]}


# help


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "estimate",
            ("--mode", "--group-size", "--ratio", "--backup", "--misfit", "--all-layers", "--pin", "--ignore"),
        ),
        ("compress", ("--out", "--misfit", "--all-layers", "--pin", "--ignore", "--json")),
        ("survey", ("--sample", "--runs", "--json")),
    ],
)
def test_help_names_every_option(command: str, options: tuple[str, ...]) -> None:
    answer = run(command, "--help")
    assert answer.code == 0
    assert all(option in answer.stdout for option in options)
    assert "terminal.help" not in answer.stdout
    assert re.search(r"\{[a-z]", answer.stdout) is None  # a placeholder that nobody filled


def test_help_names_every_command_there_is() -> None:
    answer = run("--help")
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert commands == {
        "apply",
        "cache",
        "front",
        "push",
        "targets",
        "serve",
        "prepare",
        "estimate",
        "survey",
        "compress",
        "evaluate",
        "inspect",
        "chat",
        "export",
        "verify",
    }
    assert all(command in answer.stdout for command in commands)


def test_help_names_every_mode_and_backup() -> None:
    words = run("estimate", "--help").stdout
    assert all(mode in words for mode in (*Mode, "none"))


# survey


@pytest.mark.usefixtures("own_cache")
def test_a_survey_is_one_object(tiny_model: TinyModel) -> None:
    facts = run("survey", tiny_model("llama"), "--json").json
    assert facts.keys() == FACTS | {"layers"}
    layers = by_name(facts)
    estimated = by_name(run("estimate", tiny_model("llama"), "--group-size", 32, "--json").json)
    assert layers.keys() == {name for name in estimated if "norm" not in name}
    for name, layer in layers.items():
        assert layer.keys() == {"name", "shape", "sensitivity", "schemes"}
        assert layer["shape"] == estimated[name]["shape"]
        assert layer["sensitivity"] > 0
        assert {"int8_asym", "int4_asym-g32", "nf4-gall"} <= layer["schemes"].keys()
        for scheme, line in layer["schemes"].items():
            assert line.keys() == {"bytes", "relative_error"}
            assert line["bytes"] == Scheme.parse(scheme).nbytes(tuple(layer["shape"]))
            assert 0 < line["relative_error"] < 1
        assert layer["schemes"][estimated[name]["scheme"]]["bytes"] == estimated[name]["bytes"]


@pytest.mark.usefixtures("own_cache")
def test_what_a_survey_says_is_what_compressing_finds(tiny_model: TinyModel, tmp_path: Path) -> None:
    surveyed = by_name(run("survey", tiny_model("gpt2"), "--json").json)
    done = by_name(run("compress", tiny_model("gpt2"), "--out", tmp_path / "out", "--json").json)
    for name, layer in surveyed.items():
        found = done[name]["relative_error"]
        assert layer["schemes"][done[name]["scheme"]]["relative_error"] == pytest.approx(found, rel=1e-4)


@pytest.mark.usefixtures("own_cache")
def test_a_sample_is_one_object_with_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled_survey, "RUN_WEIGHTS", 1024)
    save_tiny_model("llama", tmp_path / "tall", intermediate_size=512)
    facts = run("survey", tmp_path / "tall", "--sample", "--runs", 2, "--json").json
    assert facts.keys() == FACTS | {"layers", "confidence", "sample_bytes"}
    assert facts["confidence"] == 0.95
    whole = by_name(run("survey", tmp_path / "tall", "--json").json)
    assert by_name(facts).keys() == whole.keys()
    for layer in facts["layers"]:
        assert layer.keys() == {"name", "shape", "rows_read", "sensitivity_at_most", "schemes"}
        assert layer["rows_read"] == min(2 * 1024 // layer["shape"][1], layer["shape"][0])
        assert layer["sensitivity_at_most"] >= whole[layer["name"]]["sensitivity"] * (1 - 1e-6)
        assert layer["schemes"].keys() == whole[layer["name"]]["schemes"].keys()
        for scheme, line in layer["schemes"].items():
            assert line.keys() == {"bytes", "relative_error", "low", "high"}
            assert 0 <= line["low"] <= line["relative_error"] <= line["high"] <= 1
            assert line["bytes"] == whole[layer["name"]]["schemes"][scheme]["bytes"]
    assert facts["sample_bytes"] == sum(2 * layer["rows_read"] * layer["shape"][1] for layer in facts["layers"])
    up = by_name(facts)["model.layers.0.mlp.up_proj.weight"]["schemes"]["int4_asym-g32"]
    assert up["low"] < up["high"]


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("how", [(), ("--sample",)], ids=["whole", "sample"])
def test_a_survey_to_read_has_a_line_for_each_layer(tiny_model: TinyModel, how: tuple[str, ...]) -> None:
    answer = run("survey", tiny_model("llama"), *how)
    lines = answer.stdout.splitlines()
    layers = run("survey", tiny_model("llama"), "--json").json["layers"]
    assert answer.code == 0
    assert len(lines) == 1 + len(layers)
    assert all(sum(layer["name"] in line for line in lines) == 1 for layer in layers)
    assert ("±" in answer.stdout) is bool(how)
    if not how:  # best first
        shown = [float(word.rstrip(",%")) for word in lines[1].split() if "%" in word]
        assert shown == sorted(shown)


@pytest.mark.parametrize("runs", ["1", "0", "-3", "1001", "many", "2.5", ""])
def test_runs_are_a_number_from_2_to_1000(tiny_model: TinyModel, runs: str) -> None:
    answer = run("survey", tiny_model("llama"), "--sample", "--runs", runs, "--json")
    assert answer.code == 2
    assert "Traceback" not in answer.stderr
    assert "--runs" in answer.stderr


@pytest.mark.parametrize(("name", "key"), [("no such model", "bad_model_name"), ("", "bad_model_name")])
def test_a_survey_of_no_model_is_refused(name: str, key: str) -> None:
    assert_refused(run("survey", name, "--json"), key)
    assert_refused(run("survey", name, "--sample", "--json"), key)


# pins, misfits, all layers


def test_pins_are_said_and_heeded(tiny_model: TinyModel, tmp_path: Path) -> None:
    arguments = (
        "--pin",
        f"{Q_PROJ}=int8_sym",
        "--pin",
        "*.q_proj=nf4-g32",
        "--ignore",
        "*.o_proj",
        "--ignore",
        "lm_head",
    )
    facts = run("estimate", tiny_model("llama"), *arguments, "--json").json
    assert facts["pins"] == [f"{Q_PROJ}=int8_sym", "*.q_proj=nf4-g32", "*.o_proj=none", "lm_head=none"]
    found = schemes(facts)
    assert found[Q_PROJ] == "int8_sym"
    assert found[Q_PROJ.replace("0", "1")] == "nf4-g32"
    assert {found[name] for name in found if "o_proj" in name} == {"float16"}
    done = run("compress", tiny_model("llama"), *arguments, "--out", tmp_path / "out", "--json").json
    assert schemes(done) == found
    again = run("estimate", tiny_model("llama"), *(f"--pin={pin}" for pin in facts["pins"]), "--json").json
    assert again == facts


@pytest.mark.parametrize(("group_size_fallback", "expected"), [("ignore", "float16"), ("adjust", "int4_asym-g32")])
def test_a_misfit_is_kept_or_adjusted(tmp_path: Path, group_size_fallback: str, expected: str) -> None:
    save_tiny_model("llama", tmp_path / "narrow", intermediate_size=96)
    arguments = ("--group-size", 64, "--misfit", group_size_fallback, "--json")
    facts = run("estimate", tmp_path / "narrow", *arguments).json
    assert facts["misfit"] == group_size_fallback
    found = schemes(facts)
    assert found["model.layers.0.mlp.down_proj.weight"] == expected
    assert found["model.layers.0.mlp.up_proj.weight"] == "int4_asym-g64"
    assert_refused(run("estimate", tmp_path / "narrow", "--group-size", 64, "--json"), "group_size_misfit")


def test_all_layers_are_all(tiny_model: TinyModel) -> None:
    facts = run("estimate", tiny_model("llama"), "--all-layers", "--group-size", 32, "--json").json
    assert facts["all_layers"] is True
    assert {found for name, found in schemes(facts).items() if "norm" not in name} == {"int4_asym-g32"}


def test_a_ratio_can_go_by_predicted_damage(tiny_model: TinyModel, tmp_path: Path) -> None:
    arguments = ("--group-size", 32, "--ratio", 0.5, "--sensitivity", "damage", "--json")
    facts = run("estimate", tiny_model("llama"), *arguments).json
    assert (facts["sensitivity"], facts["exact"]) == ("damage", True)
    found = schemes(facts)
    assert {found[name] for name in found if "_proj" in name} == {"int4_asym-g32", "int8_asym"}
    made = run("compress", tiny_model("llama"), *arguments, "--out", tmp_path / "made").json
    assert schemes(made) == found
    recipe = json.loads((tmp_path / "made" / "recipe.json").read_text(encoding="utf-8"))
    assert recipe["choices"]["sensitivity"] == "damage"
    assert_refused(run("estimate", tiny_model("llama"), "--sensitivity", "luck", "--json"), "unknown_sensitivity")


@pytest.mark.parametrize(
    ("choices", "key"),
    [
        (("--pin", "q_proj"), "bad_pin"),
        (("--pin", ""), "bad_pin"),
        (("--pin", "=none"), "bad_pattern"),
        (("--pin", "x" * 300 + "=none"), "bad_pattern"),
        (("--pin", "*=nf5"), "unknown_mode"),
        (("--pin", "*=nf4-gx"), "unknown_scheme"),
        (("--pin", "*.q_proj=nf4-g128"), "pin_misfit"),
        (("--ignore", ""), "bad_pattern"),
        (("--ignore", "x" * 300), "bad_pattern"),
        (("--ignore", "a") * (MAX_PINS + 1), "too_many_pins"),
        (("--misfit", "skip"), "unknown_misfit"),
        (("--misfit", ""), "unknown_misfit"),
    ],
    ids=lambda value: " ".join(value)[:24] if isinstance(value, tuple) else value,
)
def test_a_choice_that_cannot_be(tiny_model: TinyModel, tmp_path: Path, choices: tuple[str, ...], key: str) -> None:
    assert_refused(run("estimate", tiny_model("llama"), *choices, "--json"), key)
    assert_refused(run("compress", tiny_model("llama"), *choices, "--out", tmp_path / "out", "--json"), key)
    assert names(tmp_path) == set()


# killed


@pytest.mark.parametrize(
    ("mode", "method", "key"),
    [
        ("int4_asym", "nearest", "interrupted"),
        ("int4_asym", "half_quadratic", "interrupted"),
        ("int4_asym", "best", "interrupted_anew"),
        ("int4_asym", "gptq", "interrupted_anew"),
        ("int8_asym", "gptq", "interrupted"),  # 8 bits are rounded to nearest, whatever the method
    ],
)
def test_ctrl_c_says_whether_the_work_goes_on(
    mode: str, method: str, key: str, tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(session: Session) -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Session, "compress", pressed)
    given = ("--mode", mode, "--method", method, "--out", tmp_path / "out", "--json")
    answer = run("compress", tiny_model("llama"), *given)
    assert answer.code == 130
    assert answer.json["error"]["message"] == text(f"terminal.{key}")


@pytest.fixture
def home(builtin: Checkpoint) -> Iterator[Path]:
    """A folder on the disk of the cache, where interrupted work can be shared."""
    folder = settings().cache_dir / f"test-{uuid.uuid4().hex}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


EVERY_TENSOR = "from studio.compression import journal; journal.SYNC_BYTES = 0"
AND_DIE = f"""{EVERY_TENSOR}
import os, signal
def noted(self, name, error, note=journal.Journal.note, names=[]):
    note(self, name, error)
    names.append(name)
    if len(names) == 30:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.note = noted
"""
AND_SAY = f"""{EVERY_TENSOR}
from studio.session import compressed_copy
def said(*arguments, compress=compressed_copy.compress):
    done = yield from compress(*arguments)
    print("resumed", done.resumed, file=sys.stderr)
    return done
compressed_copy.compress = said
"""


@pytest.mark.real
def test_a_compression_that_was_killed_is_taken_up_again(home: Path) -> None:
    arguments = ("--mode", "int8_asym", "--pin", "*.down_proj=int8_sym", "--ignore", "*.4.*")  # a job of its own
    shared = settings().cache_dir / "unfinished"
    for left in shared.glob("*"):  # of earlier runs of this test
        left.unlink()
    killed = run_process(
        "compress", "builtin", "--out", home / "killed", *arguments, before=AND_DIE, STUDIO_ISOLATE="0"
    )
    assert killed.code == -signal.SIGKILL
    finished = sum(len(journal.read_bytes().splitlines()) - 1 for journal in shared.glob("*.journal"))
    assert [folder.name.partition("-")[0] for folder in home.iterdir()] == [".killed.partial"]
    again = ("compress", "builtin", "--out", home / "killed", *arguments, "--json")
    answer = run_process(*again, before=AND_SAY, STUDIO_ISOLATE="0")
    assert answer.code == 0
    [resumed] = [int(line.split()[1]) for line in answer.stderr.splitlines() if line.startswith("resumed")]
    assert resumed >= finished >= 20
    assert [folder.name for folder in home.iterdir()] == ["killed"]
    whole = run("compress", "builtin", "--out", home / "whole", *arguments, "--json")
    assert (home / "killed" / "weights.studio").read_bytes() == (home / "whole" / "weights.studio").read_bytes()
    errors = [json.loads(said.stdout)["layers"] for said in (answer, whole)]
    assert errors[0] == errors[1]
