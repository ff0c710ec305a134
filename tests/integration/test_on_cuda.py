"""A CUDA device gives a checkpoint the figures and the bytes that the processor gives it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from studio.base import device
from studio.base.settings import settings
from studio.checkpoint.checkpoint import Checkpoint
from studio.compression.compress import Compressed, compress
from studio.planning.survey import candidates, survey
from studio.planning.survey_file import LayerSurvey
from studio.quantization.methods import Method
from studio.quantization.scheme import Mode, Scheme
from tests.small import a_few_weights, plan_of, random, saved
from tests.steps import finish

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SUMS = 1e-5
"""Relative: sums of squares in fp32, in another order."""
in_every_mode = pytest.mark.parametrize("mode", Mode, ids=str)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Let weights be worked on by ``"cpu"`` or ``"cuda"``, each with a cache folder of its own."""

    def forget() -> None:
        settings.cache_clear()
        device.device.cache_clear()

    def choose(name: str) -> None:
        monkeypatch.setenv("STUDIO_DEVICE", name)
        monkeypatch.setenv("STUDIO_CACHE_DIR", str(tmp_path / name))
        forget()
        assert device.device().type == name

    yield choose
    monkeypatch.undo()
    forget()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return saved(tmp_path / "model", a_few_weights() | {"b.1.up.weight": random(520, 3072, seed=7)})


def surveyed(checkpoint: Checkpoint, mode: Mode) -> dict[str, LayerSurvey]:
    wanted: dict[str, list[Scheme]] = {layer.name: candidates(layer, mode) for layer in checkpoint.layers}
    return finish(survey(checkpoint, None, wanted)).layers


@in_every_mode
def test_a_survey(checkpoint: Checkpoint, on: Callable[[str], None], mode: Mode) -> None:
    on("cpu")
    here = surveyed(checkpoint, mode)
    on("cuda")
    there = surveyed(checkpoint, mode)
    assert here.keys() == there.keys() != set()
    for name, line in here.items():
        assert there[name].errors == pytest.approx(line.errors, rel=SUMS)
        assert math.isclose(there[name].sensitivity, line.sensitivity, rel_tol=SUMS)


def compressed(checkpoint: Checkpoint, mode: Mode, file: Path, method: Method) -> Compressed:
    plan = plan_of(checkpoint, mode)
    plan = replace(plan, choice=replace(plan.choice, method=method))
    return finish(compress(checkpoint, plan, file))


@in_every_mode
def test_compressing(checkpoint: Checkpoint, on: Callable[[str], None], tmp_path: Path, mode: Mode) -> None:
    found = []
    for name in ("cpu", "cuda"):
        on(name)
        found.append(compressed(checkpoint, mode, tmp_path / f"{name}.safetensors", Method.NEAREST))
    here, there = found
    if not mode.is_in_blocks:  # which are fitted by sums
        assert there.file.read_bytes() == here.file.read_bytes()
    assert there.relative_error == pytest.approx(here.relative_error, rel=1e-3 if mode.is_in_blocks else SUMS)


@pytest.mark.parametrize("method", [Method.HALF_QUADRATIC, Method.LEAST_SQUARES])
def test_compressing_by_search(
    checkpoint: Checkpoint, on: Callable[[str], None], tmp_path: Path, method: Method
) -> None:
    """Sums in another order let a few codes fall on the other side, so that errors alone are as good."""
    found = []
    for name in ("cpu", "cuda"):
        on(name)
        file = tmp_path / f"{name}.safetensors"
        found.append(compressed(checkpoint, Mode.INT4_ASYM, file, method).relative_error)
    assert found[1] == pytest.approx(found[0], rel=1e-3)
