"""Jobs in a row leave what was asked of them and nothing else: no session's folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from studio.base.errors import CheckpointError, ModelError, SchemeError
from studio.base.workspace import sessions_folder
from studio.planning.choice import Choice
from studio.quantization.scheme import Mode
from studio.session.compressed_copy import CompressedCopy
from studio.session.compressed_folder import compressed_folder
from studio.session.session import Session
from studio.session.whole_jobs import compressed_into, compressing_into, evaluated, planned
from tests.conftest import save_tiny_model
from tests.steps import finish

TinyModel = Callable[[str], Path]


@pytest.fixture
def folder(tiny_model: TinyModel, tmp_path: Path) -> Path:
    target = tmp_path / "out"
    with compressing_into(target, Choice(Mode.INT4_SYM, 32), "builtin") as session:
        finish(planned(session, str(tiny_model("llama")), keep_group_size=True))
        done = finish(compressed_into(session, target))
    assert done.file.parent == target
    return target


def test_a_compressed_folder_is_all_that_compressing_leaves(folder: Path) -> None:
    assert compressed_folder(folder) == folder
    assert list(folder.parent.iterdir()) == [folder]


def test_a_group_size_that_nobody_named_gives_way(tiny_model: TinyModel) -> None:
    model, choice = str(tiny_model("llama")), Choice(Mode.INT4_SYM, 128)
    session = Session(paths=True, choice=choice)
    with pytest.raises(SchemeError):
        finish(planned(session, model, keep_group_size=True))
    session = Session(paths=True, choice=choice)
    finish(planned(session, model, keep_group_size=False))
    assert session.choice.group_size < 128


def test_an_evaluation_with_and_without_a_floor_finds_the_same(folder: Path, tiny_model: TinyModel) -> None:
    model = str(tiny_model("llama"))
    before = set(sessions_folder().glob("*"))
    original, whole = finish(evaluated(folder, model, None))
    _, bare = finish(evaluated(folder, model, None, with_floor=False))
    assert original.can_chat
    assert whole.floor is not None
    assert bare.floor is None
    assert whole.is_whole
    assert bare.is_whole
    assert bare.evaluation == whole.evaluation
    assert set(sessions_folder().glob("*")) == before


def test_two_models_are_told_apart_before_either_runs(
    folder: Path, tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CompressedCopy, "measure_drift", lambda *_, **__: pytest.fail("it was run"))
    save_tiny_model("llama", tmp_path / "wide", intermediate_size=160)
    for one, other, key in (
        (folder, tiny_model("qwen3"), "judge_architecture"),
        (tiny_model("llama"), tiny_model("qwen3"), "judge_architecture"),
        (folder, tmp_path / "wide", "judge_tensor"),
        (tmp_path / "wide", tiny_model("llama"), "judge_tensor"),
    ):
        with pytest.raises(CheckpointError) as caught:
            finish(evaluated(one, str(other), None))
        assert caught.value.key == key


def test_what_is_no_model_is_told_before_a_text_is_read(folder: Path) -> None:
    with pytest.raises(ModelError):
        finish(evaluated(folder, "no model's name", None))
