"""The drift of a session's compressed copy, and the texts that a visitor gives."""

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from studio.base.errors import Cancelled, ModelError, ResourceError, TextError
from studio.calibration import self_generated
from studio.chat.model_pool import Pool
from studio.evaluation import evaluate
from studio.evaluation.questions import Question
from studio.planning.choice import Choice
from studio.quantization.methods import Method
from studio.session import admission
from studio.session.session import Session
from studio.session.shared import Shared
from tests.conftest import SENTENCES, save_tiny_model
from tests.hub_server import LocalHub
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache", "_few")
LONG = " ".join(SENTENCES * 60)


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch, here: None) -> None:
    monkeypatch.setattr(evaluate, "WINDOWS", 4)
    monkeypatch.setattr(evaluate, "questions", lambda: (Question("The capital of France is", ("Paris", "Rome"), 0),))


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    save_tiny_model("llama", tmp_path / "model")
    visitor = Session(Shared(), paths=True, workspace=tmp_path / "workspace")
    finish(visitor.open(str(tmp_path / "model")))
    finish(visitor.compress())
    yield visitor
    visitor.close()


def text_file(tmp_path: Path, content: str | bytes, name: str = "mine.txt") -> Path:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_drift_sharpens_and_is_of_the_copy(session: Session) -> None:
    known = []
    for event in session.measure_drift():
        assert event.stage in ("load", "evaluate", "floor")
        known.append(session.copy.drift.evaluation.done if session.copy.drift and session.copy.drift.evaluation else 0)
    assert known == sorted(known)
    assert {1, 2, 3, 4, 5} <= set(known)
    assert session.copy.drift is not None
    assert session.copy.drift.is_whole
    assert session.copy.drift.evaluation is not None
    assert session.copy.drift.evaluation.kld.mean > 0
    assert session.copy.drift.evaluation.flips is not None
    assert session.copy.drift.floor is not None
    session.planner.choose(Choice(ratio=0.5))
    assert session.copy.drift is not None  # the copy is still there
    finish(session.compress())
    assert session.copy.drift is None


def test_stop_keeps_what_was_found(session: Session) -> None:
    steps = session.measure_drift()
    while session.copy.drift is None or session.copy.drift.evaluation is None:
        next(steps)
    session.jobs.stop("drift")
    with pytest.raises(Cancelled):
        finish(steps)
    assert session.copy.drift is not None
    assert not session.copy.drift.is_whole
    finish(session.measure_drift())
    assert session.copy.drift.is_whole


def test_drift_of_a_copy_that_is_gone_reaches_no_other(session: Session) -> None:
    steps = session.measure_drift()
    next(steps)
    finish(session.compress())
    with pytest.raises(Cancelled):
        finish(steps)
    assert session.copy.drift is None


def test_nothing_compressed_is_a_sentence(session: Session, tmp_path: Path) -> None:
    fresh = Session(paths=True)
    finish(fresh.open(str(tmp_path / "model")))
    with pytest.raises(ModelError) as caught:
        finish(fresh.measure_drift())
    assert caught.value.key == "nothing_to_measure"


def test_a_visitors_text_is_read_and_named(session: Session, tmp_path: Path) -> None:
    file = text_file(tmp_path, LONG)
    session.texts.evaluate_on(file)
    file.unlink()  # the session has its own
    assert finish(session.measure_drift()).text == "mine.txt"
    session.texts.evaluate_on(None)
    assert finish(session.measure_drift()).text == ""


def test_a_calibrated_copy_is_that_of_its_text(session: Session, tmp_path: Path) -> None:
    session.planner.choose(Choice(method=Method.LEAST_SQUARES))
    finish(session.compress())
    assert session.is_copy_of_choice
    session.texts.calibrate_on(text_file(tmp_path, LONG))
    assert not session.is_copy_of_choice
    finish(session.compress())
    assert session.is_copy_of_choice
    assert session.copy.calibrated_on is not None
    assert session.copy.calibrated_on.name == "mine.txt"
    session.planner.choose(Choice())
    finish(session.compress())
    session.texts.calibrate_on(None)
    assert session.is_copy_of_choice  # rounding to nearest reads nothing


def test_a_data_set_is_read_and_named(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text(json.dumps({"text": LONG}))
    with LocalHub() as hub:
        hub.add("datasets/owner/stories", tmp_path / "data")
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        session.texts.evaluate_on("owner/stories")
        session.texts.calibrate_on("hf://datasets/owner/stories/test.jsonl")
        with pytest.raises(TextError):
            session.texts.calibrate_on("owner/nothing")
    huggingface_hub.close_session()
    name = "hf://datasets/owner/stories/test.jsonl#text"
    assert finish(session.measure_drift()).text == name  # from its own copy: the Hub is gone
    session.planner.choose(Choice(method=Method.LEAST_SQUARES))
    finish(session.compress())
    assert session.copy.calibrated_on is not None
    assert session.copy.calibrated_on.name == name


def test_a_model_is_calibrated_on_what_it_writes_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_generated, "WINDOWS", 2)
    session.texts.calibrate_on("generated")
    session.planner.choose(Choice(method=Method.LEAST_SQUARES))
    stages = [event.stage for event in session.compress()]
    assert stages.count("generate") > 100
    assert session.is_copy_of_choice
    session.texts.calibrate_on(None)
    assert not session.is_copy_of_choice
    session.texts.calibrate_on("generated")
    assert "generate" not in [event.stage for event in session.compress()]


def test_writing_can_be_stopped(session: Session) -> None:
    session.texts.calibrate_on("generated")
    session.planner.choose(Choice(method=Method.LEAST_SQUARES))
    before = session.copy.compressed
    steps = session.compress()
    while next(steps).stage != "generate":
        pass
    session.jobs.stop("compress")
    with pytest.raises(Cancelled):
        finish(steps)
    assert session.copy.compressed is before


def test_a_model_that_does_not_fit_cannot_write_and_says_what_can_be_done(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "calibration_need", lambda *_: None)  # which is refused before it
    monkeypatch.setattr(Pool, "free", lambda _: 1000)
    session.texts.calibrate_on("generated")
    session.planner.choose(Choice(method=Method.LEAST_SQUARES))
    with pytest.raises(ResourceError) as caught:
        finish(session.compress())
    assert caught.value.key == "own_words_memory"
    session.texts.calibrate_on(None)  # block by block
    finish(session.compress())


def test_an_encoder_is_neither_calibrated_nor_measured(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    BertForMaskedLM(BertConfig(vocab_size=300, **sizes)).save_pretrained(tmp_path / "bert")
    visitor = Session(paths=True, workspace=tmp_path / "workspace")
    finish(visitor.open(str(tmp_path / "bert")))
    for given in (None, "generated"):
        visitor.texts.calibrate_on(given)
        visitor.planner.choose(Choice(method=Method.GPTQ))
        with pytest.raises(ModelError) as caught:
            finish(visitor.compress())
        assert caught.value.key == "no_language_model"
    visitor.planner.choose(Choice())
    finish(visitor.compress())
    with pytest.raises(ModelError) as caught:
        finish(visitor.measure_drift())
    assert caught.value.key == "no_language_model"
    visitor.close()


def test_a_text_of_one_word_whose_inputs_are_all_alike_calibrates_all_the_same(
    session: Session, tmp_path: Path
) -> None:
    """Second moments of rank one or little more: as singular as they can be."""
    session.texts.calibrate_on(text_file(tmp_path, "Paris " * 3000))
    session.planner.choose(Choice(method=Method.GPTQ))
    found = finish(session.compress())
    assert found.unreached == ()
    assert all(0 < error < 0.5 for error in found.relative_error.values())


@pytest.mark.parametrize(
    ("content", "key"),
    [("", "text_empty"), (" \n", "text_empty"), (b"\xff\xfe\x00\x01", "text_binary"), ("Too short.", "text_too_short")],
    ids=["empty", "blank", "binary", "short"],
)
def test_a_bad_text_is_a_sentence_and_the_one_before_stays(
    session: Session, tmp_path: Path, content: str | bytes, key: str
) -> None:
    session.texts.evaluate_on(text_file(tmp_path, LONG))
    session.texts.calibrate_on(text_file(tmp_path, LONG))
    before = session.texts.evaluation, session.texts.calibration
    bad = text_file(tmp_path, content, "bad.txt")
    for take in (session.texts.evaluate_on, session.texts.calibrate_on):
        with pytest.raises(TextError) as caught:
            take(bad)
        assert caught.value.key == key
        assert "{" not in caught.value.sentence()
    assert (session.texts.evaluation, session.texts.calibration) == before
