"""What stands beside the original changes at the end of a job that came to its end, and then as a whole."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from studio.base.errors import Cancelled, ModelError, SchemeError
from studio.calibration.texts import Text
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.recipe import is_compressed
from studio.compression.compress import Compressed
from studio.compression.sequential import calibration_tokens
from studio.planning.choice import Choice
from studio.planning.plan import Plan, make_plan
from studio.quantization.methods import Method
from studio.quantization.scheme import Mode
from studio.session.compressed_copy import CompressedCopy, export_name
from studio.session.jobs import Jobs
from tests.conftest import SENTENCES
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
INT4, INT8 = Choice(Mode.INT4_ASYM, 32), Choice(Mode.INT8_SYM)
LONG = " ".join(SENTENCES * 60)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def copy(jobs: Jobs, tmp_path: Path) -> Iterator[CompressedCopy]:
    copy = CompressedCopy(tmp_path / "workspace", Pool(), jobs)
    yield copy
    copy.close()


def plan_of(llama: Checkpoint, choice: Choice = INT4) -> Plan:
    return make_plan(llama.layers, choice)


def made(copy: CompressedCopy, llama: Checkpoint, choice: Choice = INT4) -> Compressed:
    return finish(copy.make(llama, plan_of(llama, choice), None, None, lambda: True))


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_copy_is_a_whole_folder_and_answers(copy: CompressedCopy, llama: Checkpoint, tmp_path: Path) -> None:
    compressed = made(copy, llama)
    assert copy.compressed is compressed
    assert compressed.plan == plan_of(llama)
    assert copy.folder is not None
    assert copy.folder.name == "tiny-llama-int4_asym-g32"
    assert is_compressed(copy.folder)
    assert files(tmp_path / "workspace") == files(copy.folder)
    assert copy.column is not None
    assert copy.column().key == str(copy.folder)
    assert copy.drift is None


def test_a_new_copy_takes_the_place_of_the_one_before(copy: CompressedCopy, llama: Checkpoint, tmp_path: Path) -> None:
    made(copy, llama)
    before = copy.folder
    assert before is not None
    made(copy, llama, INT8)
    assert not before.exists()
    assert copy.folder is not None
    assert files(tmp_path / "workspace") == files(copy.folder)
    assert copy.compressed is not None
    assert copy.compressed.plan.choice == INT8


@pytest.mark.parametrize("how", ["stopped", "closed", "left"])
def test_a_copy_that_is_not_made_to_its_end_leaves_the_one_before(
    copy: CompressedCopy, jobs: Jobs, llama: Checkpoint, tmp_path: Path, how: str
) -> None:
    compressed, folder, column = made(copy, llama), copy.folder, copy.column
    before = files(tmp_path / "workspace")
    is_current = True
    steps = copy.make(llama, plan_of(llama, INT8), None, None, lambda: is_current)
    next(steps)
    if how == "closed":
        steps.close()
    else:
        is_current = how != "left"
        if how == "stopped":
            jobs.stop("compress")
        with pytest.raises(Cancelled):
            finish(steps)
    assert (copy.compressed, copy.folder, copy.column) == (compressed, folder, column)
    assert files(tmp_path / "workspace") == before


def test_a_model_that_was_left_at_the_last_step_gets_no_copy(
    copy: CompressedCopy, llama: Checkpoint, tmp_path: Path
) -> None:
    is_current = True
    steps = copy.make(llama, plan_of(llama), None, None, lambda: is_current)
    while next(steps).stage != "finish":
        pass
    is_current = False
    with pytest.raises(Cancelled):
        finish(steps)
    assert copy.compressed is None
    assert copy.column is None
    assert files(tmp_path / "workspace") == set()


def test_a_copy_is_of_the_text_that_its_method_read(copy: CompressedCopy, llama: Checkpoint, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(LONG)
    text = Text("mine.txt", file)
    plan = plan_of(llama, replace(INT4, method=Method.GPTQ))
    finish(copy.make(llama, plan, text, calibration_tokens(llama, LONG), lambda: True))
    assert copy.calibrated_on == text
    assert copy.folder is not None
    assert "mine.txt: 16 x 256 tokens" in (copy.folder / "README.md").read_text()


def test_the_same_job_again_has_the_drift_that_was_measured_of_it(
    copy: CompressedCopy, llama: Checkpoint, tmp_path: Path
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(" ".join(SENTENCES * 6))
    made(copy, llama)
    drift = finish(copy.measure_drift(llama, Text("mine.txt", file)))
    assert copy.drift is drift
    assert (drift.text, drift.is_whole) == ("mine.txt", True)
    made(copy, llama, INT8)
    assert copy.drift is None, "another copy"
    made(copy, llama)
    assert copy.drift is drift
    copy.place(llama)
    assert copy.drift is None


def test_drift_is_of_a_copy_that_is_there_and_stays(copy: CompressedCopy, jobs: Jobs, llama: Checkpoint) -> None:
    with pytest.raises(ModelError):
        finish(copy.measure_drift(llama, None))
    copy.place(llama)
    steps = copy.measure_drift(llama, None)
    next(steps)
    copy.forget()
    with pytest.raises(Cancelled):
        finish(steps)
    copy.place(llama)
    jobs.stop("drift")
    with pytest.raises(Cancelled):
        finish(copy.measure_drift(llama, None))
    assert copy.drift is None


def test_a_model_that_was_there_before_answers_and_its_files_stay(
    copy: CompressedCopy, llama: Checkpoint, tmp_path: Path
) -> None:
    made(copy, llama)
    own, elsewhere = copy.folder, tmp_path / "elsewhere"
    assert own is not None
    own.rename(elsewhere)
    copy.place(elsewhere)
    assert copy.column is not None
    assert copy.column().key == str(elsewhere)
    assert copy.compressed is None
    assert copy.folder is None
    with pytest.raises(ModelError) as raised:
        finish(copy.archive(tmp_path / "archive"))
    assert raised.value.key == "nothing_compressed"
    copy.close()
    assert is_compressed(elsewhere)
    assert copy.column is None


def test_an_archive_goes_with_the_next_one_and_with_the_session(
    copy: CompressedCopy, llama: Checkpoint, tmp_path: Path
) -> None:
    made(copy, llama)
    with pytest.raises(SchemeError):
        finish(copy.archive(tmp_path / "none", "no such target"))
    assert not (tmp_path / "none").exists()
    first = finish(copy.archive(tmp_path / "first"))
    assert first.parent == tmp_path / "first"
    assert first.is_file()
    second = finish(copy.archive(tmp_path / "second"))
    assert not first.exists()
    copy.forget()
    assert second.is_file(), "it may be on its way to a browser"
    copy.close()
    assert not second.exists()
    assert files(tmp_path / "workspace") == set()


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("/models/tiny llama", "tiny-llama-int4_asym-g32"),
        ("owner/tiny", "tiny-int4_asym-g32"),
        ("owner/..", "model-int4_asym-g32"),
        ("owner/" + "x" * 300, "x" * 80 + "-int4_asym-g32"),
        ('owner/a"b\nc', "a-b-c-int4_asym-g32"),
    ],
    ids=["a space", "a hub id", "dots", "long", "quotes"],
)
def test_a_copy_is_called_after_its_model_in_a_name_that_can_be_a_folders(
    llama: Checkpoint, name: str, called: str
) -> None:
    assert export_name(replace(llama, name=name), plan_of(llama)) == called


@pytest.mark.parametrize(("budget", "ending"), [("q4_k_m", "q4_k_m"), ("60%", "60pct"), ("4.5bpw", "4.5bpw")])
def test_a_budget_names_the_copy_without_its_target(llama: Checkpoint, budget: str, ending: str) -> None:
    plan = plan_of(llama)
    budgeted = replace(plan, choice=Choice.of("int4_asym", 32, budget=budget, target="gguf"))
    assert export_name(replace(llama, name="owner/tiny"), budgeted) == f"tiny-{ending}"
