"""Every export target: what a folder says of itself, what is written of it, and that nothing half written stays."""

import errno
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from studio.base.errors import CheckpointError, ResourceError, SchemeError, UserError, disk_error
from studio.base.progress import Progress
from studio.base.text import LANGUAGES, catalogue
from studio.checkpoint.recipe import read_recipe
from studio.export import runners, targets
from studio.export.compressed_model import CompressedModel, Writing, opened
from studio.export.studio_folder import archive
from studio.export.target import Target
from studio.export.targets import TARGETS, export, one_file, put_in_place, target_named
from studio.planning.choice import Choice, Pin
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Mode, Scheme
from studio.session.session import Session
from studio.ui import take
from tests.conftest import ARCHITECTURES
from tests.steps import finish

CHOICE = Choice(Mode.INT4_ASYM, 32, pins=(Pin("*.1.*", None), Pin("*.0.*o_proj*", Scheme(Mode.INT8_SYM))))
CHOICES = (
    CHOICE,
    Choice(Mode.Q8_0, 32, backup=Mode.Q8_0, pins=(Pin("*.1.*", None),)),
    Choice(Mode.INT4_SYM, 32, backup=None),
)
every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@pytest.fixture(scope="module")
def session_of(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Session]:
    """A session that compressed a tiny model, by architecture and choice."""
    made: dict[tuple[str, Choice], Session] = {}

    def make(architecture: str, choice: Choice = CHOICE) -> Session:
        if (architecture, choice) not in made:
            session = Session(paths=True, workspace=tmp_path_factory.mktemp("sessions") / "s")
            finish(session.open(str(tiny_model(architecture))))
            session.planner.choose(choice)
            finish(session.compress())
            made[architecture, choice] = session
        return made[architecture, choice]

    return make


@pytest.fixture
def folder(session_of: Callable[..., Session]) -> Path:
    made = session_of("llama").copy.folder
    assert made is not None
    return made


@pytest.fixture
def held_by(session_of: Callable[..., Session]) -> Callable[[Target], Path]:
    """A compressed folder that a target can hold."""

    def find(target: Target) -> Path:
        folders = [folder for choice in CHOICES if (folder := session_of("llama", choice).copy.folder) is not None]
        models = {folder: opened(folder) for folder in folders}
        return next(folder for folder, m in models.items() if target.refusal(m.plan, m.checkpoint) is None)

    return find


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_opened_again_has_the_plan_that_made_it(architecture: str, session_of: Callable[..., Session]) -> None:
    session = session_of(architecture)
    assert session.copy.folder is not None
    assert session.copy.compressed is not None
    assert session.checkpoint is not None
    plan, model = session.copy.compressed.plan, opened(session.copy.folder)
    facts = [
        (a.layer.name, a.layer.kind, a.layer.shape, a.layer.transposed, a.layer.tied, a.scheme)
        for a in plan.assignments
    ]
    assert facts == [
        (a.layer.name, a.layer.kind, a.layer.shape, a.layer.transposed, a.layer.tied, a.scheme)
        for a in model.plan.assignments
    ]
    assert model.plan.choice == plan.choice
    assert (model.plan.compressed_bytes, model.plan.original_bytes) == (plan.compressed_bytes, plan.original_bytes)
    assert model.checkpoint.architecture == session.checkpoint.architecture
    tensors = {a.layer.name: held for a, held in model.tensors()}
    assert len(tensors) == len(plan.assignments)
    for a in plan.assignments:
        held = tensors[a.layer.name]
        assert isinstance(held, PackedTensor) == (a.scheme is not None)
        if isinstance(held, PackedTensor):
            assert (held.scheme, held.shape) == (a.scheme, a.layer.matrix)
            assert sum(array.nbytes for array in held.arrays().values()) == a.nbytes
        else:
            assert held.shape == a.layer.stored_shape
            assert torch.equal(held.flatten(), torch.cat(list(session.checkpoint.stored(a.layer))).to(held.dtype))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_catalogues_hold_the_targets_and_no_other(language: str) -> None:
    there = {key for key in catalogue(language) if key.startswith("target.")}
    assert there == {key for target in TARGETS.values() for key in target.keys}
    assert {program.target for program in runners.known().values()} >= TARGETS.keys()


@every_target
def test_a_target_is_written_whole(target: Target, held_by: Callable[[Target], Path], tmp_path: Path) -> None:
    folder = held_by(target)
    out = tmp_path / f"deep/er/small{target.suffix}"
    steps = list(export(target, folder, out))
    assert files(out.parent) == {out.name}
    assert steps[-1].done == steps[-1].total > 0
    assert target.size(opened(folder).plan) <= sum(
        file.stat().st_size for file in (out, *out.rglob("*")) if file.is_file()
    )


@every_target
def test_one_that_is_stopped_leaves_nothing(target: Target, held_by: Callable[[Target], Path], tmp_path: Path) -> None:
    folder = held_by(target)
    out = tmp_path / "small"
    steps = export(target, folder, out)
    next(steps)
    steps.close()
    assert files(tmp_path) == set()


@every_target
def test_nothing_is_written_over(target: Target, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("mine")
    with pytest.raises(ResourceError) as caught:
        list(export(target, folder, tmp_path / "small"))
    assert caught.value.key == "already_there"
    assert (tmp_path / "small").read_text() == "mine"


def test_a_folder_that_was_not_compressed_is_none(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        list(export(TARGETS["studio"], tiny_model("llama"), tmp_path / "small"))
    assert files(tmp_path) == set()


def test_an_unknown_target_names_the_known_ones() -> None:
    with pytest.raises(SchemeError) as caught:
        target_named("pickle")
    assert all(name in str(caught.value) for name in (*TARGETS, "pickle"))


def _full(model: CompressedModel, out: Path) -> Writing:
    yield Progress("export", 1, 2)
    raise disk_error(OSError(errno.ENOSPC, "full"), out)


def test_a_full_disk_is_told_of_the_file_that_was_asked_for(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught:
        list(export(replace(TARGETS["studio"], write=_full), folder, tmp_path / "small"))
    assert (caught.value.key, caught.value.values) == ("export_disk_full", {"path": str(tmp_path)})
    assert files(tmp_path) == set()


def _two_files(model: CompressedModel, out: Path) -> Writing:
    out.mkdir()
    for done, (a, held) in enumerate(model.tensors(), 1):
        (out / f"{done}.txt").write_text(f"{a.layer.name} {held.shape}")
        yield Progress("export", done, len(model.plan.assignments))
    return out


def test_folders_in_a_folder_are_in_the_zip(tmp_path: Path) -> None:
    inner = tmp_path / "model/onnx"
    inner.mkdir(parents=True)
    (inner / "graph.onnx").write_text("graph")
    (tmp_path / "model/config.json").write_text("{}")
    with zipfile.ZipFile(finish(archive(tmp_path / "model", tmp_path / "model.zip"))) as zipped:
        assert sorted(zipped.namelist()) == ["model/config.json", "model/onnx/graph.onnx"]


def _only_int8(plan: object, checkpoint: object) -> UserError | None:
    return SchemeError("unknown_scheme", name="int4")


def test_a_target_that_is_a_folder_is_one_file_for_a_browser(folder: Path, tmp_path: Path) -> None:
    target = replace(TARGETS["studio"], name="notes", suffix="", write=_two_files)
    assert finish(export(target, folder, tmp_path / "notes")).is_dir()
    file = finish(one_file(target, folder, tmp_path / "download"))
    assert files(tmp_path / "download") == {file.name}
    assert file.suffix == ".zip"
    with zipfile.ZipFile(file) as zipped:
        assert len(zipped.namelist()) == len(opened(folder).plan.assignments)


def test_a_plan_that_a_target_cannot_hold_is_refused_by_its_reason(
    session_of: Callable[..., Session], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = replace(TARGETS["studio"], refusal=_only_int8)
    with pytest.raises(SchemeError) as caught:
        list(export(target, folder, tmp_path / "small"))
    assert caught.value.values == {"name": "int4"}
    assert files(tmp_path) == set()
    monkeypatch.setitem(targets.TARGETS, target.name, target)
    session = session_of("llama")
    session.decision.program = runners.known()[target.name]  # that no program loads it does not hide it
    assert str(caught.value) in take.reads(session, "en")


def test_an_export_of_the_studio_holds_the_folder(folder: Path, tmp_path: Path) -> None:
    file = finish(export(TARGETS["studio"], folder, tmp_path / "small.zip"))
    with zipfile.ZipFile(file) as zipped:
        zipped.extractall(tmp_path)
    assert read_recipe(tmp_path / read_recipe(folder).name) == read_recipe(folder)


def test_of_two_at_one_new_place_the_second_is_refused_at_once(tmp_path: Path) -> None:
    out = tmp_path / "made.gguf"
    with put_in_place(out) as place:
        with pytest.raises(ResourceError) as caught, put_in_place(out):
            pass
        assert caught.value.key == "folder_in_use"
        place.write_text("of the first")
    assert out.read_text() == "of the first"
    assert list(tmp_path.iterdir()) == [out]
