"""What a model writes itself: always the same, of its own tokens, whole windows, and kept only as it was written."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from studio.base import json_cache
from studio.base.errors import CheckpointError, ModelError
from studio.calibration import self_generated
from studio.calibration.self_generated import LIKELIEST, write
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.runtime.decoder import open_original
from studio.runtime.model import load_tokenizer
from tests.steps import finish


@pytest.fixture
def checkpoint(tiny_model: Callable[[str], Path]) -> Checkpoint:
    return of_folder(tiny_model("llama"))


def written(checkpoint: Checkpoint, count: int = 3, length: int = 40) -> torch.Tensor:
    return finish(write(checkpoint, open_original(checkpoint), load_tokenizer(checkpoint.path), count, length))


def test_the_same_model_writes_the_same_again_and_every_window_another(checkpoint: Checkpoint) -> None:
    found = written(checkpoint)
    assert found.shape == (3, 40)
    assert torch.equal(found, written(checkpoint))
    assert len({tuple(row) for row in found.tolist()}) == 3


def test_after_a_random_token_come_the_likeliest_then_sampled_ones(checkpoint: Checkpoint) -> None:
    for row in written(checkpoint).tolist():
        decoder = open_original(checkpoint)
        cache = decoder.begin(len(row))
        logits = torch.cat([decoder.step(cache, [token])[None] for token in row])
        is_likeliest = [int(logits[i].argmax()) == row[i + 1] for i in range(len(row) - 1)]
        assert all(is_likeliest[:LIKELIEST])
        assert not all(is_likeliest[LIKELIEST:])


def test_progress_counts_tokens_to_the_end(checkpoint: Checkpoint) -> None:
    steps = list(write(checkpoint, open_original(checkpoint), load_tokenizer(checkpoint.path), 2, 20))
    done = [step.done for step in steps]
    assert done == sorted(set(done))
    assert done[-1] == steps[-1].total == 40


def test_a_window_is_no_longer_than_the_model_reads(checkpoint: Checkpoint) -> None:
    assert written(checkpoint, 1, 1000).shape == (1, 256)


def test_a_model_without_probabilities_is_a_sentence(checkpoint: Checkpoint) -> None:
    nothing: Any = SimpleNamespace(context=99, begin=lambda _: None, step=lambda *_: torch.full((300,), float("nan")))
    with pytest.raises(ModelError) as caught:
        finish(write(checkpoint, nothing, load_tokenizer(checkpoint.path), 1, 9))
    assert caught.value.key == "no_own_words"


def test_a_tokenizer_of_another_model_is_refused(checkpoint: Checkpoint) -> None:
    class Foreign:
        special_ids = frozenset((0, 1))

        def __len__(self) -> int:
            return 2

        def encode(self, text: str) -> list[int]:
            return []

        def check(self, ids: list[int], words: int) -> None:
            return None

    with pytest.raises(CheckpointError):
        finish(write(checkpoint, open_original(checkpoint), Foreign(), 1, 9))  # type: ignore[arg-type]


@pytest.mark.usefixtures("own_cache")
def test_what_was_written_is_kept_and_nothing_else_is_believed(checkpoint: Checkpoint) -> None:
    assert self_generated.recall(checkpoint) is None
    ids = torch.arange(self_generated.WINDOWS * 20).reshape(self_generated.WINDOWS, 20) % 100
    self_generated.keep(checkpoint, ids)
    assert torch.equal(self_generated.recall(checkpoint), ids)  # type: ignore[arg-type]
    for wrong in (None, [], [[1, 2]], [[1]] * 15 + [[1, 2]], [[-1]] * 16, [[10**6]] * 16, [["a"]] * 16, [[1.5]] * 16):
        json_cache.keep(self_generated._file(checkpoint), wrong)
        assert self_generated.recall(checkpoint) is None
