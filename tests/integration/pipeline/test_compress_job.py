"""Compressing as a visitor's job: what it leaves when it ends, is stopped, closed or fails."""

import os
import time
from pathlib import Path

import pytest

from studio.base.errors import Cancelled, CheckpointError, ModelError
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import Checkpoint
from studio.planning.choice import Choice
from studio.session.session import Session
from tests.steps import finish
from tests.visits import CHOICES, INT4, INT8, PACKED, WEIGHTS, ask, errors, files, tensor_bytes, until

MIXED = Choice.of(*CHOICES["int4_asym-g64-0.5-none"])


@pytest.mark.real
def test_progress_never_pauses_for_half_a_second_of_work(builtin: Checkpoint, workspace: Path) -> None:
    """Seconds of this thread, so that whatever else the machine does is not counted."""
    session = Session(workspace=workspace)
    finish(session.open("builtin"))
    session.planner.choose(Choice.of("nf4", 64, 1, "int8_asym"))
    began = time.thread_time()
    gaps: list[float] = []
    fractions: list[float] = []
    details = set()
    for event in session.compress():
        gaps.append(time.thread_time() - began)
        began = time.thread_time()
        assert event.fraction is not None
        fractions.append(event.fraction)
        details.add(event.detail)
    session.close()
    assert max(gaps) < 0.5
    assert fractions == sorted(fractions)
    assert {"model.embed_tokens.weight", "model.layers.29.mlp.down_proj.weight"} < details


def test_an_estimate_becomes_exact_by_compressing(opened: Session) -> None:
    assert not opened.planner.choose(MIXED).is_exact
    compressed = finish(opened.compress())
    assert compressed.plan.is_exact
    assert opened.copy.folder is not None
    assert tensor_bytes(opened.copy.folder / PACKED) == compressed.plan.compressed_bytes
    again = Session(paths=True)
    finish(again.open(opened.checkpoint.name))  # type: ignore[union-attr]
    assert again.planner.choose(MIXED).is_exact


@pytest.mark.parametrize("stage", ["rank", "compress"])
def test_stop_ends_a_compression_and_leaves_nothing(opened: Session, workspace: Path, stage: str) -> None:
    opened.planner.choose(MIXED)
    steps = opened.compress()
    until(steps, stage)
    opened.jobs.stop("compress")
    with pytest.raises(Cancelled):
        finish(steps)
    assert files(workspace) == set()
    assert opened.copy.compressed is None
    assert finish(opened.compress()).plan.choice == MIXED
    assert all(reply.tokens for reply in ask(opened).replies)


@pytest.mark.parametrize("stage", ["rank", "compress", "finish"])
def test_closing_a_compression_leaves_nothing(opened: Session, workspace: Path, stage: str) -> None:
    opened.planner.choose(MIXED)
    steps = opened.compress()
    until(steps, stage)
    steps.close()
    assert files(workspace) == set()
    assert opened.copy.compressed is None
    finish(opened.compress())
    assert all(reply.tokens for reply in ask(opened).replies)


def test_a_new_copy_takes_the_place_of_the_old_one(opened: Session, workspace: Path) -> None:
    opened.planner.choose(INT8)
    finish(opened.compress())
    before = opened.copy.folder
    opened.planner.choose(INT4)
    assert not opened.is_copy_of_choice
    finish(opened.compress())
    assert opened.is_copy_of_choice
    assert before is not None
    assert not before.exists()
    assert {path.parts[-2] for path in files(workspace)} == {"tiny-int4_asym-g32"}


def test_a_job_that_fails_keeps_the_copy_before_it(opened: Session, model: Path, tmp_path: Path) -> None:
    opened.planner.choose(INT8)
    first = finish(opened.compress())
    kept, said = files(tmp_path / "workspace"), ask(opened).replies[1].text
    opened.planner.choose(INT4)
    os.truncate(model / WEIGHTS, 60_000)
    with pytest.raises(CheckpointError) as caught:
        finish(opened.compress())
    assert caught.value.key == "damaged_file"
    assert opened.copy.compressed is first
    assert files(tmp_path / "workspace") == kept
    opened.conversation.forget()
    assert ask(opened).replies[1].text == said
    assert finish(opened.copy.archive(tmp_path / "download")).name == "tiny-int8_asym.zip"


def test_a_model_that_cannot_be_opened_keeps_the_one_before_it(opened: Session) -> None:
    opened.planner.choose(INT8)
    finish(opened.compress())
    before = (opened.checkpoint, opened.plan, opened.copy.compressed, opened.copy.folder)
    with pytest.raises(ModelError):
        finish(opened.open("no such model"))
    assert (opened.checkpoint, opened.plan, opened.copy.compressed, opened.copy.folder) == before
    assert all(reply.tokens for reply in ask(opened).replies)


def test_a_session_that_ends_takes_its_files_and_its_model_along(opened: Session, workspace: Path, pool: Pool) -> None:
    finish(opened.compress())
    ask(opened)
    assert len(pool._models) == 2
    opened.close()
    assert not workspace.exists()
    assert len(pool._models) == 1  # the original is anyone's


def test_stop_means_one_job_and_not_another(opened: Session, tmp_path: Path) -> None:
    opened.jobs.stop("chat")
    finish(opened.compress())
    opened.jobs.clear_stop("chat")  # as Send does
    opened.jobs.stop("compress")
    assert finish(opened.copy.archive(tmp_path / "download")).is_file()
    assert errors(ask(opened)) == [None, None]


def test_stop_is_heard_by_an_answer_that_has_not_begun(opened: Session) -> None:
    opened.jobs.clear_stop("chat")
    opened.jobs.stop("chat")
    with pytest.raises(Cancelled):
        ask(opened)
    assert errors(ask(opened)) == [None]  # asked anew
