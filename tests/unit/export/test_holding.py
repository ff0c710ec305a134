"""One table of all targets before anything is written: as it is, as another plan, or not, with the file's own bytes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.base.errors import ModelError, SchemeError
from studio.base.text import LANGUAGES
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.export.compressed_model import opened
from studio.export.holding import Held, every_target
from studio.export.runners import known
from studio.export.targets import TARGETS, export
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.session.holding import held
from studio.session.session import Session
from studio.ui import take
from tests.integration.gguf.models import packed
from tests.steps import finish
from tests.terminal import assert_refused, run

WORDS: dict[str, dict[str, object]] = {
    "int4_asym": {"mode": "int4_asym", "group_size": 32},
    "int4_sym": {"mode": "int4_sym", "group_size": 32, "backup": "none"},
    "int4_affine": {"mode": "int4_affine", "group_size": 32},
    "nf4": {"mode": "nf4", "group_size": 32, "pins": ["*down_proj=int8_sym"]},
    "q4_0": {"mix": "q4_0"},
    "budget": {"budget": "60%"},
}


@pytest.fixture
def checkpoint(tiny_model: Callable[[str], Path]) -> Checkpoint:
    return of_folder(tiny_model("llama"))


def rows(checkpoint: Checkpoint, choice: Choice) -> dict[str, Held]:
    def planned(other: Choice) -> object:
        return make_plan(checkpoint.layers, other)

    plan = make_plan(checkpoint.layers, choice)
    return {each.target.name: each for each in every_target(plan, checkpoint, planned)}  # type: ignore[arg-type]


@pytest.mark.parametrize("words", WORDS.values(), ids=list(WORDS))
def test_every_target_has_a_row_that_is_true(words: dict[str, object], checkpoint: Checkpoint) -> None:
    plan = make_plan(checkpoint.layers, Choice.of(**words))  # type: ignore[arg-type]
    found = rows(checkpoint, plan.choice)
    assert list(found) == list(TARGETS)
    for name, each in found.items():
        assert each.is_lossless == (TARGETS[name].refusal(plan, checkpoint) is None)
        if each.plan is not None:
            assert TARGETS[name].refusal(each.plan, checkpoint) is None
            assert each.nbytes == TARGETS[name].size(each.plan)


def test_what_a_plan_becomes_is_what_its_arguments_choose(checkpoint: Checkpoint) -> None:
    each = rows(checkpoint, Choice.of(mode="int4_asym", group_size=32))["mlx"]
    assert each.becomes is not None
    assert each.becomes.label == "int4_affine-g64"  # 4.5 bits are nearer to 4.63 than 5 are
    assert each.arguments[:6] == ["--to", "mlx", "--mode", "int4_affine", "--group-size", "64"]
    mix = rows(checkpoint, Choice.of(mode="nf4", group_size=32))["gguf"]
    assert mix.becomes is not None
    assert mix.arguments == ["--to", f"gguf:{mix.becomes.mix}"]


def test_it_becomes_the_nearest_in_bytes(checkpoint: Checkpoint) -> None:
    eight = rows(checkpoint, Choice.of(mode="int8_asym"))["mlx"]
    four = rows(checkpoint, Choice.of(mode="int4_asym", group_size=32))["mlx"]
    assert eight.nbytes is not None
    assert four.nbytes is not None
    assert eight.nbytes > four.nbytes


def test_the_bytes_are_those_of_the_files_that_are_written(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    choice = Choice.of(mode="int4_affine", group_size=32)
    folder = packed(tiny_model("llama"), tmp_path / "packed", choice)
    _, plan, found = finish(held(str(folder), Choice(), False))
    assert plan.choice == opened(folder).plan.choice
    mlx = next(each for each in found if each.target.name == "mlx")
    out = finish(export(TARGETS["mlx"], folder, tmp_path / "mlx"))
    weights = out / "model.safetensors"
    header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    assert mlx.nbytes == weights.stat().st_size - header


def test_a_model_that_no_graph_is_drawn_of_says_so_whatever_the_plan(tiny_model: Callable[[str], Path]) -> None:
    found = rows(of_folder(tiny_model("gpt2")), Choice.of(mode="nf4", group_size=32))
    for name in ("mlx", "onnx", "openvino", "gguf"):
        assert found[name].plan is None, name
        assert isinstance(found[name].reason, ModelError), name
    assert found["studio"].is_lossless


def test_the_page_s_table_is_drawn_while_somebody_looks(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    session = Session(paths=True, workspace=tmp_path / "s")
    finish(session.open(str(tiny_model("llama"))))
    session.planner.choose(Choice.of(mode="int4_asym", group_size=32))
    assert take.others(session, "en") == ""
    session.looks_at_others = True
    for language in LANGUAGES:
        drawn = take.others(session, language)
        assert drawn.count("<tr>") == 1 + len(known())
    found = rows(session.model.chosen, session.choice)
    drawn = take.others(session, "en")
    assert f"{found['onnx'].nbytes:,}" in drawn
    assert "int4_affine-g64" in drawn


class TestTerminal:
    def test_one_object(self, tiny_model: Callable[[str], Path]) -> None:
        answer = run("targets", tiny_model("llama"), "--mode", "int4_asym", "--group-size", "32", "--json")
        assert answer.code == 0
        found = {each["target"]: each for each in answer.json["targets"]}
        assert list(found) == list(TARGETS)
        assert found["onnx"]["holds"] == "as_it_is"
        assert found["mlx"]["holds"] == "converted"
        assert found["mlx"]["reason"]["key"] == "to_mlx_zero_point"
        again = run("targets", tiny_model("llama"), *found["mlx"]["arguments"][2:], "--json").json["targets"]
        mlx = next(each for each in again if each["target"] == "mlx")
        assert (mlx["holds"], mlx["bytes"]) == ("as_it_is", found["mlx"]["bytes"])
        json.dumps(answer.json)

    def test_lines_to_read(self, tiny_model: Callable[[str], Path]) -> None:
        said = run("targets", tiny_model("llama"), "--mode", "nf4", "--group-size", "32").stdout
        assert all(name in said for name in TARGETS)
        assert "--to mlx --mode int4_affine" in said

    def test_a_folder_has_its_plan(self, tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
        folder = packed(tiny_model("llama"), tmp_path / "packed", Choice.of(mode="int4_sym", group_size=32))
        facts = run("targets", folder, "--json").json
        assert facts["plan"] == "int4_sym-g32"
        found = {each["target"]: each for each in facts["targets"]}
        assert "--from-original" in found["gguf"]["arguments"]
        assert_refused(run("targets", folder, "--mode", "nf4", "--json"), "export_chosen")

    def test_a_bad_choice_is_a_sentence(self, tiny_model: Callable[[str], Path]) -> None:
        assert_refused(run("targets", tiny_model("llama"), "--mode", "int9", "--json"), "unknown_mode")
        with pytest.raises(SchemeError):
            finish(held(str(tiny_model("llama")), Choice.of(mode="int4_asym", group_size=256), True))
