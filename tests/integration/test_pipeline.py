"""A model through all stages of a session, without a page: open, plan, compress, chat, export; and what may go wrong.

Tiny random models of five architectures show that every kind of layer goes through; the built-in model (``real``)
that a person gets sense out of it.
"""

import errno
import hashlib
import json
import math
import os
import resource
import shutil
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from studio import chat as chat_module
from studio import pool as pool_module
from studio import session as session_module
from studio.chat import Sampling, answer, prompt_ids
from studio.checkpoint import Checkpoint, of_folder
from studio.errors import Cancelled, CheckpointError, ModelError, PromptError, ResourceError, UserError
from studio.export import folder as folder_module
from studio.headers import read_header
from studio.model import load_compressed, load_original, load_tokenizer, weight_bytes
from studio.plan import Choice, make_plan
from studio.pool import Pool
from studio.recipe import PackedWeight, read_recipe
from studio.rounding.nearest import NF4_LEVELS
from studio.scheme import Scheme
from studio.session import Answers, Event, Session, compressed_column
from studio.template import TIMEOUT
from studio.units import format_bytes
from tests.conftest import ARCHITECTURES, save_tiny_model

Result = TypeVar("Result")
TinyModel = Callable[[str], Path]

WEIGHTS = "model.safetensors"
QUESTION = "What is the capital of France?"
SHORT = Sampling(max_new_tokens=8)
CHOICES = {
    "int8_asym": ("int8_asym", -1, 1, "int8_asym"),
    "int8_sym": ("int8_sym", -1, 1, "int8_asym"),
    "int4_asym-g32": ("int4_asym", 32, 1, "int8_asym"),
    "int4_sym-gall": ("int4_sym", -1, 1, "int8_asym"),
    "nf4-g64": ("nf4", 64, 1, "int8_sym"),
    "int4_asym-g64-0.5-none": ("int4_asym", 64, 0.5, "none"),
}
INT8 = Choice.of(*CHOICES["int8_asym"])
INT4 = Choice.of(*CHOICES["int4_asym-g32"])
MIXED = Choice.of(*CHOICES["int4_asym-g64-0.5-none"])


def finish(steps: Generator[Any, None, Result]) -> Result:
    """Run a job to its end and return what came of it."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: Result = finished.value
            return result


def until(steps: Iterator[Event], stage: str) -> Event:
    """Run a job up to the first event of ``stage``."""
    return next(event for event in steps if event.stage == stage)


def ask(session: Session, prompt: str = QUESTION, sampling: Sampling = SHORT) -> Answers:
    """Return the whole answers to a prompt."""
    *_, last = session.chat(prompt, sampling)
    assert isinstance(last, Answers)
    return last


def files(folder: Path) -> set[Path]:
    """Return every file below a folder, hidden ones too."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def tensor_bytes(file: Path) -> int:
    return sum(entry.nbytes for entry in read_header(file).values())


@contextmanager
def largest_file(nbytes: int) -> Iterator[None]:
    """Let no file grow beyond ``nbytes``: what a full disk is to a program that writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def session(workspace: Path) -> Iterator[Session]:
    visitor = Session(paths=True, workspace=workspace)
    yield visitor
    visitor.close()


@pytest.fixture
def model(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy of a tiny model, to be changed."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "tiny"))


@pytest.fixture
def opened(session: Session, model: Path) -> Session:
    """A session with the copy chosen, nothing compressed yet."""
    finish(session.open(str(model)))
    return session


# five architectures


@dataclass(frozen=True)
class Made:
    """A tiny model, and what compressing it left."""

    source: Checkpoint
    choice: Choice
    session: Session
    folder: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Made]]:
    """Each architecture compressed by each choice, once.

    Their weights are larger than the usual 0.02, so that the blocks and not the embedding make the logits.
    """
    sessions = []

    @cache
    def source(architecture: str) -> Path:
        folder = tmp_path_factory.mktemp("source") / architecture
        save_tiny_model(architecture, folder, initializer_range=0.1)
        return folder

    @cache
    def make(architecture: str, choice: str) -> Made:
        session = Session(paths=True, workspace=tmp_path_factory.mktemp("workspace"))
        sessions.append(session)
        checkpoint = finish(session.open(str(source(architecture))))
        session.choose(Choice.of(*CHOICES[choice]))
        finish(session.compress())
        assert session.folder is not None
        return Made(checkpoint, session.choice, session, session.folder)

    yield make
    for session in sessions:
        session.close()


in_every_case = pytest.mark.parametrize("choice", CHOICES)
of_every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)

BF16_BOUND = 0.02
"""Relative error of the logits. bf16 rounds by at most 2^-9. From a token to its logits a block of these models rounds
about 15 times (norms, products, rotation, softmax, sums), and the rest 4 times; two blocks make 34 roundings, which add
up to sqrt(34) * 2^-9 = 1.1 % when they are independent, and the scales, rounded to bf16 too, to less than as much
again. Measured: 0.4 to 1.2 %. A copy of another model, or of this one before it was rounded to 4 bits, is 5 % or more away."""


def dequantized(file: Any, weight: PackedWeight) -> Tensor:
    """Return what the stored numbers of a weight stand for, fp64 [N, K]: the format's words, not the studio's code."""
    scheme = Scheme.parse(weight.scheme)
    rows, width = weight.shape
    codes = file.get_tensor(f"{weight.name}.codes")
    scale = file.get_tensor(f"{weight.name}.scale").double()
    if scheme.mode.bits == 4:
        codes = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(1)[:, :width]
    if scheme.mode == "nf4":
        values = torch.tensor(NF4_LEVELS, dtype=torch.float64)[codes.int()]
    elif scheme.mode.has_zero_point:
        zero_point = file.get_tensor(f"{weight.name}.zero_point")
        if scheme.mode.bits == 4:
            zero_point = torch.stack((zero_point & 15, zero_point >> 4), dim=-1).flatten()[: scale.numel()]
        zero_point = zero_point.reshape(scale.shape).repeat_interleave(width // scale.shape[1], dim=1)
        values = codes.double() - zero_point.double()
    else:
        values = codes.double() - (8 if scheme.mode.bits == 4 else 0)
    return values * scale.repeat_interleave(width // scale.shape[1], dim=1)


def transformers_model(source: Path) -> nn.Module:
    """Return transformers' own model of a folder, in fp64."""
    from transformers import AutoModelForCausalLM

    reference: nn.Module = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float64, local_files_only=True)
    return reference.eval()


def reference_of(made: Made) -> nn.Module:
    """Return transformers' own model with every weight replaced by what the exported file holds in its place."""
    reference = transformers_model(made.source.path)
    parameters = dict(reference.named_parameters())
    packed = read_recipe(made.folder).weights
    with safe_open(made.folder / WEIGHTS, framework="pt") as file:
        for weight in packed:
            value = dequantized(file, weight)
            parameters[weight.name].data.copy_(value.T if weight.transposed else value)
        stored = {f"{weight.name}.{part}" for weight in packed for part in ("codes", "scale", "zero_point")}
        for name in set(file.keys()) - stored:
            parameters[name].data.copy_(file.get_tensor(name))
    return reference


@torch.inference_mode()
def logits(model: nn.Module, length: int = 48) -> Tensor:
    """Return a model's logits after every one of ``length`` tokens, fp64 [T, V]."""
    ids = torch.randint(3, 256, (1, length), generator=torch.Generator().manual_seed(1))
    found: Tensor = model(ids).logits
    return found[0].double()


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@of_every_architecture
@in_every_case
def test_the_file_holds_exactly_the_bytes_of_the_plan(
    made: Callable[[str, str], Made], architecture: str, choice: str
) -> None:
    one = made(architecture, choice)
    planned = make_plan(one.source.layers, one.choice, one.session.sensitivities)
    assert planned.is_exact
    assert tensor_bytes(one.folder / WEIGHTS) == planned.compressed_bytes
    assert sum(planned.breakdown().values()) == planned.compressed_bytes
    assert read_recipe(one.folder).compressed_bytes == planned.compressed_bytes
    assert planned.original_bytes == sum(2 * value.numel() for value in transformers_model(one.source.path).parameters())


@of_every_architecture
@in_every_case
def test_the_packed_model_is_transformers_model_with_the_dequantized_weights(
    made: Callable[[str, str], Made], architecture: str, choice: str
) -> None:
    one = made(architecture, choice)
    found, expected = logits(load_compressed(one.folder)), logits(reference_of(one))
    assert distance(found, expected) < BF16_BOUND
    for token in range(len(found)):
        assert distance(found[token], expected[token]) < 2 * BF16_BOUND
    if one.choice.mode.bits == 4:  # the bound tells the rounded model from the one it was made of
        assert distance(found, logits(transformers_model(one.source.path))) > 2 * BF16_BOUND


@of_every_architecture
def test_the_original_is_transformers_model(made: Callable[[str, str], Made], architecture: str) -> None:
    one = made(architecture, "int8_asym")
    assert distance(logits(load_original(one.source)), logits(transformers_model(one.source.path))) < BF16_BOUND


@of_every_architecture
@in_every_case
def test_loading_twice_gives_the_same_bits(made: Callable[[str, str], Made], architecture: str, choice: str) -> None:
    folder = made(architecture, choice).folder
    assert torch.equal(logits(load_compressed(folder)), logits(load_compressed(folder)))


@of_every_architecture
@in_every_case
def test_the_weights_are_in_memory_in_packed_form_only(
    made: Callable[[str, str], Made], architecture: str, choice: str
) -> None:
    """Of a row torch's layouts keep at most 10 bytes and 4 for every group of 32; the file has less of them.

    A dequantized weight, before an answer or after it, would be a tensor of floats as large as one.
    """
    one = made(architecture, choice)
    model = load_compressed(one.folder)
    shapes = [weight.shape for weight in read_recipe(one.folder).weights]
    before = weight_bytes(model)
    logits(model)
    assert weight_bytes(model) == before
    layouts = sum(rows * (10 + 4 * width // 32) for rows, width in shapes)
    assert before <= tensor_bytes(one.folder / WEIGHTS) + layouts + 1000  # and the buffers of the rotation
    parameters = dict(model.named_parameters())
    kept = {parameters[name].data_ptr() for name in parameters.keys() & read_header(one.folder / WEIGHTS).keys()}
    smallest = min(math.prod(shape) for shape in shapes)
    for name, value in tensors(model):
        if value.is_floating_point() and value.numel() >= smallest:
            assert value.data_ptr() in kept, name


def tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield everything a module holds, registered or not."""
    for path, module in model.named_modules():
        for name, value in (vars(module) | module._parameters | module._buffers).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}", value


# the built-in model


@pytest.fixture(scope="module")
def real(builtin: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, float], Session]]:
    """Sessions with the built-in model compressed, by mode and ratio."""
    sessions = []

    @cache
    def make(mode: str, ratio: float) -> Session:
        session = Session(workspace=tmp_path_factory.mktemp("workspace"))
        sessions.append(session)
        finish(session.open("builtin"))
        finish(session.survey())
        session.choose(Choice.of(mode, 64, ratio, "int8_asym"))
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
    assert session.folder is not None
    assert session.plan.is_exact
    assert session.plan.original_bytes == 269_030_016
    assert session.plan.compressed_bytes == tensor_bytes(session.folder / WEIGHTS) == REAL[mode, ratio]


@pytest.mark.real
@in_both_real_modes
def test_the_builtin_model_is_in_memory_in_packed_form_only(
    real: Callable[[str, float], Session], mode: str, ratio: float
) -> None:
    """torch's layouts take 4 bytes a group of 64 where the file takes 2.5: 1.5 / 34.5 more."""
    session = real(mode, ratio)
    answers = ask(session)
    assert answers.is_slow == (False, False)
    original, compressed = answers.weight_bytes
    assert original is not None
    assert compressed is not None
    assert 269_030_016 <= original < 1.001 * 269_030_016
    assert REAL[mode, ratio] <= compressed < 1.045 * REAL[mode, ratio]


@pytest.mark.real
def test_both_columns_know_the_capital_of_france(real: Callable[[str, float], Session]) -> None:
    session = real("int8_asym", 1.0)
    session.clear_chat()
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
        session.clear_chat()
        answers = ask(session, "Count from one to ten.", Sampling(max_new_tokens=24))
        texts.append([reply.text for reply in answers.replies])
    assert texts[0] == texts[1]
    assert all(texts[0])


@pytest.mark.real
@in_both_real_modes
def test_every_checksum_of_the_recipe_is_that_of_its_file(
    real: Callable[[str, float], Session], mode: str, ratio: float
) -> None:
    session = real(mode, ratio)
    assert session.folder is not None
    recipe = read_recipe(session.folder)
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in session.folder.iterdir()}
    assert recipe.sha256 == {name: sums[name] for name in sums.keys() - {"recipe.json", "README.md"}}
    assert recipe.choices.mode == mode
    assert recipe.choices.ratio == ratio
    assert recipe.source.model == "builtin"


@pytest.mark.real
@in_both_real_modes
def test_the_archive_unpacked_elsewhere_is_the_same_model(
    real: Callable[[str, float], Session], mode: str, ratio: float, tmp_path: Path
) -> None:
    session = real(mode, ratio)
    assert session.folder is not None
    file = finish(session.archive(tmp_path / "download"))
    assert files(tmp_path / "download") == {Path(file.name)}
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "elsewhere")
    folder = tmp_path / "elsewhere" / session.folder.name
    assert files(folder) == files(session.folder)
    assert tensor_bytes(folder / WEIGHTS) == REAL[mode, ratio]
    assert torch.equal(logits(load_compressed(folder), 16), logits(load_compressed(session.folder), 16))
    session.clear_chat()
    column = compressed_column(folder, REAL[mode, ratio])
    with Pool().borrow(column.key, column.need, column.load) as speaker:
        *_, reply = answer(speaker, [{"role": "user", "content": QUESTION}], SHORT)
    assert reply.text == ask(session).replies[1].text != ""


# compress


@pytest.mark.real
def test_progress_never_pauses_for_half_a_second_of_work(builtin: Checkpoint, workspace: Path) -> None:
    """Seconds of this thread, so that whatever else the machine does is not counted."""
    session = Session(workspace=workspace)
    finish(session.open("builtin"))
    session.choose(Choice.of("nf4", 64, 1, "int8_asym"))
    began = time.thread_time()
    gaps, fractions, details = [], [], set()
    for event in session.compress():
        gaps.append(time.thread_time() - began)
        began = time.thread_time()
        fractions.append(event.fraction)
        details.add(event.detail)
    session.close()
    assert max(gaps) < 0.5
    assert fractions == sorted(fractions)
    assert {"model.embed_tokens.weight", "model.layers.29.mlp.down_proj.weight"} < details


def test_an_estimate_becomes_exact_by_compressing(opened: Session) -> None:
    assert not opened.choose(MIXED).is_exact
    compressed = finish(opened.compress())
    assert compressed.plan.is_exact
    assert opened.folder is not None
    assert tensor_bytes(opened.folder / WEIGHTS) == compressed.plan.compressed_bytes
    again = Session(paths=True)
    finish(again.open(opened.checkpoint.name))  # type: ignore[union-attr]
    assert again.choose(MIXED).is_exact


@pytest.mark.parametrize("stage", ["survey", "compress"])
def test_stop_ends_a_compression_and_leaves_nothing(opened: Session, workspace: Path, stage: str) -> None:
    opened.choose(MIXED)
    steps = opened.compress()
    until(steps, stage)
    opened.stop()
    with pytest.raises(Cancelled):
        finish(steps)
    assert files(workspace) == set()
    assert opened.compressed is None
    assert finish(opened.compress()).plan.choice == MIXED
    assert all(reply.tokens for reply in ask(opened).replies)


@pytest.mark.parametrize("stage", ["survey", "compress", "finish"])
def test_closing_a_compression_leaves_nothing(opened: Session, workspace: Path, stage: str) -> None:
    opened.choose(MIXED)
    steps = opened.compress()
    until(steps, stage)
    steps.close()
    assert files(workspace) == set()
    assert opened.compressed is None
    finish(opened.compress())
    assert all(reply.tokens for reply in ask(opened).replies)


def test_a_new_copy_takes_the_place_of_the_old_one(opened: Session, workspace: Path) -> None:
    opened.choose(INT8)
    finish(opened.compress())
    before = opened.folder
    opened.choose(INT4)
    assert not opened.is_current
    finish(opened.compress())
    assert opened.is_current
    assert before is not None
    assert not before.exists()
    assert {path.parts[-2] for path in files(workspace)} == {"tiny-int4_asym-g32"}


def test_a_job_that_fails_keeps_the_copy_before_it(opened: Session, model: Path, tmp_path: Path) -> None:
    opened.choose(INT8)
    first = finish(opened.compress())
    kept, said = files(tmp_path / "workspace"), ask(opened).replies[1].text
    opened.choose(INT4)
    os.truncate(model / WEIGHTS, 60_000)
    with pytest.raises(CheckpointError) as caught:
        finish(opened.compress())
    assert caught.value.key == "damaged_file"
    assert opened.compressed is first
    assert files(tmp_path / "workspace") == kept
    opened.clear_chat()
    assert ask(opened).replies[1].text == said
    assert finish(opened.archive(tmp_path)).name == "tiny-int8_asym.zip"


def test_a_model_that_cannot_be_opened_keeps_the_one_before_it(opened: Session) -> None:
    opened.choose(INT8)
    finish(opened.compress())
    before = (opened.checkpoint, opened.plan, opened.compressed, opened.folder)
    with pytest.raises(ModelError):
        finish(opened.open("no such model"))
    assert (opened.checkpoint, opened.plan, opened.compressed, opened.folder) == before
    assert all(reply.tokens for reply in ask(opened).replies)


def test_a_disk_that_fills_up_while_compressing_leaves_nothing(opened: Session, workspace: Path) -> None:
    with largest_file(50_000), pytest.raises(ResourceError) as caught:
        finish(opened.compress())
    assert caught.value.key == "export_disk_full"
    assert files(workspace) == set()
    finish(opened.compress())


def test_a_disk_that_fills_up_while_the_folder_is_made_leaves_nothing(
    opened: Session, model: Path, workspace: Path
) -> None:
    (model / "added_tokens.json").write_text(" " * 300_000)
    with largest_file(200_000), pytest.raises(ResourceError) as caught:
        finish(opened.compress())
    assert caught.value.key == "export_disk_full"
    assert files(workspace) == set()
    finish(opened.compress())


def test_a_disk_that_fills_up_while_archiving_leaves_nothing(opened: Session, tmp_path: Path) -> None:
    finish(opened.compress())
    with largest_file(50_000), pytest.raises(ResourceError) as caught:
        finish(opened.archive(tmp_path / "download"))
    assert caught.value.key == "export_disk_full"
    assert files(tmp_path / "download") == set()
    assert zipfile.is_zipfile(finish(opened.archive(tmp_path / "download")))


def test_a_disk_that_is_too_small_is_found_before_the_work(
    opened: Session, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 64 << 20))
    steps = opened.compress()
    with pytest.raises(ResourceError) as caught:
        until(steps, "compress")
    assert caught.value.key == "export_disk_too_small"
    assert caught.value.values["free"] == "67.1 MB"
    assert files(workspace) == set()


@pytest.mark.parametrize("how", ["stop", "close"])
def test_an_archive_that_is_cancelled_leaves_nothing(opened: Session, tmp_path: Path, how: str) -> None:
    finish(opened.compress())
    steps = opened.archive(tmp_path / "download")
    until(steps, "export")
    if how == "stop":
        opened.stop()
        with pytest.raises(Cancelled):
            next(steps)
    else:
        steps.close()
    assert files(tmp_path / "download") == set()
    assert finish(opened.archive(tmp_path / "download")).is_file()


def test_there_is_no_archive_before_a_compression(opened: Session, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        finish(opened.archive(tmp_path))
    assert caught.value.key == "nothing_compressed"


def test_a_session_that_ends_takes_its_files_and_its_model_along(
    opened: Session, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool()
    monkeypatch.setattr(session_module, "POOL", pool)
    finish(opened.compress())
    ask(opened)
    assert len(pool._models) == 2
    opened.close()
    assert not workspace.exists()
    assert len(pool._models) == 1  # the original is anyone's
