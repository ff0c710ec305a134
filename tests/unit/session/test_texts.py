"""A text that was chosen is the session's own copy, known by what it says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from studio.base.errors import ModelError, TextError
from studio.calibration import self_generated
from studio.calibration.texts import GENERATED, Text
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import Checkpoint
from studio.compression.sequential import calibration_tokens
from studio.session.jobs import Jobs
from studio.session.opened_model import OpenedModel
from studio.session.planner import Planner
from studio.session.texts import Texts, calibration_windows, content_of, windows_about
from tests.conftest import SENTENCES
from tests.steps import finish

LONG = " ".join(SENTENCES * 60)
Choose = Callable[[Texts, Path | str | None], None]
PURPOSES = pytest.mark.parametrize(
    ("choose", "name"),
    [(Texts.calibrate_on, "calibration"), (Texts.evaluate_on, "evaluation")],
    ids=["calibration", "evaluation"],
)


@pytest.fixture
def planner() -> Planner:
    return Planner()


@pytest.fixture
def texts(planner: Planner, tmp_path: Path) -> Texts:
    return Texts(planner, tmp_path / "workspace")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.txt"
    file.write_text(LONG)
    return file


def windows(checkpoint: Checkpoint, text: Text | None, is_current: bool = True) -> torch.Tensor:
    return finish(calibration_windows(checkpoint, text, Pool(), Jobs(), lambda: is_current))


@PURPOSES
def test_a_text_is_a_copy_that_outlives_its_file(texts: Texts, file: Path, choose: Choose, name: str) -> None:
    assert getattr(texts, name) is None
    assert content_of(None) is None
    choose(texts, file)
    file.unlink()
    text = getattr(texts, name)
    assert text.name == "mine.txt"
    assert content_of(text) == LONG
    (other,) = {"calibration", "evaluation"} - {name}
    assert getattr(texts, other) is None
    choose(texts, None)
    assert getattr(texts, name) is None


@PURPOSES
def test_the_same_content_given_again_is_the_same_text_and_other_content_another(
    texts: Texts, file: Path, choose: Choose, name: str
) -> None:
    choose(texts, file)
    before = getattr(texts, name)
    choose(texts, file)
    assert getattr(texts, name) == before
    file.write_text(LONG + " More.")
    choose(texts, file)
    assert getattr(texts, name) != before
    assert content_of(before) == LONG, "what was made with it can be made again"


@PURPOSES
@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\x00", b"a\0b"], ids=["empty", "blank", "no UTF-8", "null"])
def test_what_is_no_text_changes_nothing(texts: Texts, file: Path, choose: Choose, name: str, content: bytes) -> None:
    choose(texts, file)
    before = getattr(texts, name)
    file.write_bytes(content)
    with pytest.raises(TextError):
        choose(texts, file)
    file.unlink()
    with pytest.raises(TextError):
        choose(texts, file)
    assert getattr(texts, name) == before


@PURPOSES
def test_a_text_is_long_enough_for_the_model_once_there_is_one(
    texts: Texts, planner: Planner, llama: Checkpoint, file: Path, choose: Choose, name: str
) -> None:
    file.write_text("Too short.")
    choose(texts, file)
    before = getattr(texts, name)
    planner.take(OpenedModel(llama))
    file.write_text("Too short, too.")
    with pytest.raises(TextError) as raised:
        choose(texts, file)
    assert raised.value.key == "text_too_short"
    assert getattr(texts, name) == before
    file.write_text(LONG)
    choose(texts, file)
    assert content_of(getattr(texts, name)) == LONG


def test_what_the_model_writes_itself_is_no_file(texts: Texts) -> None:
    texts.calibrate_on("generated")
    assert texts.calibration == GENERATED
    assert content_of(GENERATED) is None


def test_a_text_is_read_in_windows_without_a_model_in_memory(texts: Texts, llama: Checkpoint, file: Path) -> None:
    texts.calibrate_on(file)
    assert torch.equal(windows(llama, texts.calibration), calibration_tokens(llama, LONG))
    assert torch.equal(windows(llama, None), calibration_tokens(llama))


@pytest.mark.usefixtures("own_cache")
def test_what_the_model_wrote_before_is_not_written_again(llama: Checkpoint) -> None:
    kept = torch.arange(self_generated.WINDOWS * 8).reshape(self_generated.WINDOWS, 8) % 100
    self_generated.keep(llama, kept)
    assert list(calibration_windows(llama, GENERATED, Pool(), Jobs(), lambda: True)) == []
    assert torch.equal(windows(llama, GENERATED), kept)


@pytest.mark.parametrize("text", [None, GENERATED], ids=["built in", "generated"])
def test_what_writes_no_text_is_not_calibrated(llama: Checkpoint, text: Text | None) -> None:
    with pytest.raises(ModelError):
        windows(replace(llama, can_chat=False), text)


def test_how_long_a_text_is_about_is_known_without_a_tokenizer(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("x" * 350_000)
    assert [windows_about(each) for each in (None, GENERATED, Text("mine.txt", file))] == [7, 16, 341]
