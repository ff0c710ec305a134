"""Whether a copy is that of what is chosen now: a text that its method reads makes it stale, another does not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.planning.choice import Choice
from studio.quantization.methods import Method
from studio.quantization.scheme import Mode
from studio.session.session import Session
from studio.session.shared import Shared
from tests.conftest import SENTENCES
from tests.steps import finish

pytestmark = pytest.mark.usefixtures("own_cache")
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def session(tiny_model: Callable[[str], Path], tmp_path: Path) -> Iterator[Session]:
    session = Session(Shared(), paths=True, workspace=tmp_path / "workspace", choice=Choice(Mode.INT4_ASYM, 32))
    finish(session.open(str(tiny_model("llama"))))
    yield session
    session.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.txt"
    file.write_text(" ".join(SENTENCES * 60))
    return file


@pytest.mark.parametrize("method", [Method.GPTQ, Method.NEAREST], ids=["reads a text", "reads none"])
def test_a_text_that_its_method_reads_makes_a_copy_stale(session: Session, file: Path, method: Method) -> None:
    choice = Choice(Mode.INT4_ASYM, 32, method=method)
    session.planner.choose(choice)
    assert not session.is_copy_of_choice, "there is none"
    session.texts.calibrate_on(file)
    finish(session.compress())
    assert session.is_copy_of_choice
    assert session.is_copy_of_plan
    session.texts.evaluate_on(file)
    assert session.is_copy_of_choice, "no copy is made of it"
    session.texts.calibrate_on(None)
    assert session.is_copy_of_choice == session.is_copy_of_plan == (not method.needs_inputs)
    session.texts.calibrate_on(file)
    assert session.is_copy_of_choice, "it says the same as before"


def test_a_choice_makes_a_copy_stale_until_it_is_undone(session: Session) -> None:
    finish(session.compress())
    session.planner.pin(Q_PROJ, None)
    assert not session.is_copy_of_choice
    assert not session.is_copy_of_plan
    session.planner.undo()
    assert session.is_copy_of_choice
    assert session.is_copy_of_plan


def test_the_same_model_opened_again_keeps_its_copy_and_another_does_not(
    session: Session, tiny_model: Callable[[str], Path]
) -> None:
    finish(session.compress())
    finish(session.open(str(tiny_model("llama"))))
    assert session.is_copy_of_plan
    finish(session.open(str(tiny_model("gpt2"))))
    assert session.copy.compressed is None
    assert not session.is_copy_of_choice
