"""Models that are damaged: refused with one sentence when they are chosen, or while they are read."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.base.errors import CheckpointError, UserError
from studio.checkpoint.checkpoint import of_folder
from studio.planning.choice import Choice
from studio.runtime.model import load_original
from studio.session.session import Session
from tests.damaged_folders import DAMAGES, in_shards
from tests.steps import finish
from tests.visits import CHOICES, WEIGHTS, TinyModel, ask, files, logits


@pytest.mark.parametrize(("damage", "key"), DAMAGES.items(), ids=[damage.__name__ for damage in DAMAGES])
def test_a_damaged_model_is_refused_when_it_is_chosen(
    session: Session, model: Path, workspace: Path, damage: Callable[[Path], object], key: str
) -> None:
    damage(model)
    with pytest.raises(UserError) as caught:
        finish(session.open(str(model)))
    assert caught.value.key == key
    assert "{" not in caught.value.sentence()
    assert session.checkpoint is None
    assert not workspace.exists()


def test_a_model_in_shards_is_the_same_model(session: Session, model: Path, tiny_model: TinyModel) -> None:
    in_shards(model)
    whole, sharded = of_folder(tiny_model("llama")), finish(session.open(str(model)))
    assert torch.equal(logits(load_original(sharded)), logits(load_original(whole)))
    finish(session.compress())
    assert all(reply.tokens for reply in ask(session).replies)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38], ids=["nan", "inf", "beyond-fp16"])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.weight", "model.norm.weight"], ids=["linear", "norm"])
def test_weights_that_are_no_numbers_are_refused(
    session: Session, model: Path, workspace: Path, choice: str, value: float, name: str
) -> None:
    """Also a weight whose scale is beyond fp16; a tensor that stays in bf16 may hold such a number."""
    weights = load_file(model / WEIGHTS)
    weights[name].view(-1)[5] = value
    save_file(weights, model / WEIGHTS)
    finish(session.open(str(model)))
    session.planner.choose(Choice.of(*CHOICES[choice]))
    if value == 3e38 and name == "model.norm.weight":
        finish(session.compress())
        return
    with pytest.raises(CheckpointError) as caught:
        finish(session.compress())
    assert (caught.value.key, caught.value.values) == ("not_finite", {"tensor": name})
    assert files(workspace) == set()


def test_a_file_that_vanishes_is_one_sentence(opened: Session, model: Path, workspace: Path) -> None:
    (model / WEIGHTS).unlink()
    with pytest.raises(CheckpointError) as caught:
        finish(opened.compress())
    assert caught.value.key == "damaged_file"
    assert files(workspace) == set()
