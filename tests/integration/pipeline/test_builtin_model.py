"""The built-in model through a whole session: its bytes, its answers, its checksums, its archive."""

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from studio.chat.answer import answer
from studio.chat.columns import compressed_column
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.license import License
from studio.checkpoint.recipe import read_recipe
from studio.planning.choice import Choice
from studio.runtime.model import load_compressed
from studio.runtime.sampling import Sampling
from studio.session.session import Session
from tests.steps import finish
from tests.visits import PACKED, QUESTION, SHORT, ask, files, logits, tensor_bytes


@pytest.fixture(scope="module")
def real(builtin: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, float], Session]]:
    """Sessions with the built-in model compressed, by mode and ratio."""
    sessions = []

    @cache
    def make(mode: str, ratio: float) -> Session:
        session = Session(workspace=tmp_path_factory.mktemp("workspace"))
        sessions.append(session)
        finish(session.open("builtin"))
        finish(session.measurements.survey())
        session.planner.choose(Choice.of(mode, 64, ratio, "int8_asym"))
        finish(session.compress())
        return session

    yield make
    for session in sessions:
        session.close()


REAL = {("int8_asym", 1.0): 135_164_160, ("int4_asym", 0.9): 90_761_184}


in_both_real_modes = pytest.mark.parametrize(("mode", "ratio"), REAL, ids=["int8_asym", "int4_asym-g64-0.9"])


@pytest.mark.real
@in_both_real_modes
def test_the_builtin_model_takes_the_bytes_it_should(
    real: Callable[[str, float], Session], mode: str, ratio: float
) -> None:
    session = real(mode, ratio)
    assert session.plan is not None
    assert session.copy.folder is not None
    assert session.plan.is_exact
    assert session.plan.original_bytes == 269_030_016
    assert session.plan.compressed_bytes == tensor_bytes(session.copy.folder / PACKED) == REAL[mode, ratio]


@pytest.mark.real
@in_both_real_modes
def test_the_builtin_model_is_in_memory_in_packed_form_only(
    real: Callable[[str, float], Session], mode: str, ratio: float
) -> None:
    """In tiles a zero point takes a byte instead of half of one, 0.5 of 34.5 bytes a group; norms are fp32."""
    session = real(mode, ratio)
    answers = ask(session)
    assert answers.is_slow == (False, False)
    original, compressed = answers.weight_bytes
    assert original is not None
    assert compressed is not None
    assert 269_030_016 <= original < 1.001 * 269_030_016
    assert REAL[mode, ratio] <= compressed < 1.02 * REAL[mode, ratio]


@pytest.mark.real
def test_both_columns_know_the_capital_of_france(real: Callable[[str, float], Session]) -> None:
    session = real("int8_asym", 1.0)
    session.conversation.forget()
    answers = ask(session, QUESTION, Sampling(max_new_tokens=32))
    for reply in answers.replies:
        assert "Paris" in reply.text
        assert reply.error is None
        assert reply.tokens_per_second > 0
        assert reply.first_token_seconds > 0


@pytest.mark.real
@in_both_real_modes
def test_the_likeliest_answer_is_always_the_same(
    real: Callable[[str, float], Session], mode: str, ratio: float
) -> None:
    session = real(mode, ratio)
    texts = []
    for _ in range(2):
        session.conversation.forget()
        texts.append([reply.text for reply in ask(session, "Count from one to ten.").replies])
    assert texts[0] == texts[1]
    assert all(texts[0])


@pytest.mark.real
@in_both_real_modes
def test_every_checksum_of_the_recipe_is_that_of_its_file(
    real: Callable[[str, float], Session], mode: str, ratio: float
) -> None:
    session = real(mode, ratio)
    assert session.copy.folder is not None
    recipe = read_recipe(session.copy.folder)
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in session.copy.folder.iterdir()}
    assert recipe.sha256 == {name: sums[name] for name in sums.keys() - {"recipe.json", "README.md"}}
    assert recipe.choices.mode == mode
    assert recipe.choices.ratio == ratio
    assert recipe.source.model == "builtin"
    assert recipe.source.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert recipe.source.license == License("apache-2.0")


@pytest.mark.real
@in_both_real_modes
def test_the_archive_unpacked_elsewhere_is_the_same_model(
    real: Callable[[str, float], Session], mode: str, ratio: float, tmp_path: Path
) -> None:
    session = real(mode, ratio)
    assert session.copy.folder is not None
    file = finish(session.copy.archive(tmp_path / "download"))
    assert files(tmp_path / "download") == {Path(file.name)}
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "elsewhere")
    folder = tmp_path / "elsewhere" / session.copy.folder.name
    assert files(folder) == files(session.copy.folder)
    assert tensor_bytes(folder / PACKED) == REAL[mode, ratio]
    assert torch.equal(logits(load_compressed(folder), 16), logits(load_compressed(session.copy.folder), 16))
    session.conversation.forget()
    column = compressed_column(folder)
    *_, reply = answer(column.open(), [{"role": "user", "content": QUESTION}], SHORT)
    assert reply.text == ask(session).replies[1].text != ""
