"""The checks of ``evaluate`` from names to figures: a model changes none of its own answers, a rounded one may."""

from collections.abc import Callable
from pathlib import Path

import pytest

from studio.base.errors import CheckpointError, ModelError, ResourceError
from studio.evaluation.prompted import CHECKS
from studio.session import abilities as module
from studio.session.abilities import abilities, tensor_kinds
from tests.steps import finish

TinyModel = Callable[[str], Path]


def test_every_part_of_every_check_is_counted(tiny_model: TinyModel, own_cache: Path) -> None:
    model = tiny_model("llama")
    original, done = finish(abilities(model, str(model), CHECKS, 0))
    assert original.can_chat
    assert list(done.flips) == ["decline", "help", "dialogue"]
    assert [flips.questions for flips in done.flips.values()] == [24, 24, 20]
    assert done.found == ()


def test_a_key_needs_a_model_that_reads_far_enough(tiny_model: TinyModel, own_cache: Path) -> None:
    model = tiny_model("llama")
    with pytest.raises(ModelError) as caught:
        finish(abilities(model, str(model), (), 4096))
    assert caught.value.key == "context_too_short"


def test_another_model_is_refused(tiny_model: TinyModel, own_cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        finish(abilities(tiny_model("qwen3"), str(tiny_model("llama")), CHECKS, 0))
    assert caught.value.key == "judge_architecture"


def test_keys_and_values_alone_need_the_model_in_memory(
    tiny_model: TinyModel, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(tiny_model("llama"))
    monkeypatch.setattr(module, "available_memory", lambda: 1000)
    with pytest.raises(ResourceError):
        finish(tensor_kinds(model, None, with_activations=False, with_kv=True))
    monkeypatch.undo()
    checkpoint, rows = finish(tensor_kinds(model, None, with_activations=False, with_kv=True))
    assert checkpoint.can_chat
    assert [row.name for row in rows][:2] == ["KV16", "KV8"]
