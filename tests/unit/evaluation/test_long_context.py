"""A word to be found far back: where it stands, what is asked last, and what models that know or do not know say."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from studio.base.errors import ModelError
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.tokenizer.guarded_tokenizer import load_tokenizer
from studio.evaluation import long_context
from studio.evaluation.evaluate import predictor
from studio.evaluation.long_context import ASKED, DEPTHS, keys_found, lengths, long_text
from studio.runtime.decoder import GeneralDecoder
from studio.runtime.model import load_original
from tests.steps import finish


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths that the tiny models read, in little time."""
    monkeypatch.setattr(long_context, "SHORTEST", 96)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_key_is_said_once_at_its_depth_and_asked_for_at_the_end(
    tiny_model: Callable[[str], Path], depth: float
) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    ids, options, right = long_text(checkpoint, 400, depth, 1)
    text = load_tokenizer(checkpoint.path).decode(ids.tolist())
    assert 330 < len(ids) <= 400
    assert text.rstrip().endswith(ASKED)
    assert text.count(ASKED) == 2
    assert abs(text.index(ASKED) / len(text) - depth) < 0.2
    assert len(options) > right >= 0


@pytest.mark.usefixtures("short")
def test_the_original_finds_what_it_finds_and_another_is_counted(
    tiny_model: Callable[[str], Path], own_cache: Path
) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    own = predictor(GeneralDecoder(load_original(checkpoint).float()))
    (same,) = finish(keys_found(checkpoint, own, 100))
    assert (same.tokens, same.keys, same.changed) == (96, len(DEPTHS), 0)
    assert same.found == same.original_found

    def knowing(ids: Tensor) -> Iterator[Tensor]:
        told = [option for option in options.tolist() if option in ids.tolist()]
        yield torch.zeros(1, 1000).scatter_(1, torch.tensor([told[:1]]), 1.0)

    _, options, _ = long_text(checkpoint, 96, 0.5, 0)
    (found,) = finish(keys_found(checkpoint, knowing, 100))
    assert found.found == len(DEPTHS)


def test_lengths_double_as_far_as_asked_for_and_the_model_reads(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    with pytest.raises(ModelError) as caught:
        lengths(checkpoint, 1000)
    assert caught.value.key == "context_too_short"


@pytest.mark.usefixtures("short")
def test_the_longest_is_the_models_own(tiny_model: Callable[[str], Path]) -> None:
    assert lengths(of_folder(tiny_model("llama")), 200) == [96, 192]
