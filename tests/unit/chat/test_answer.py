"""Two models answer side by side: one that fails leaves the other alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.base.errors import ResourceError
from studio.chat.answer import LoadedModel, answer, side_by_side
from studio.checkpoint.checkpoint import of_folder
from studio.runtime.decoder import PrefixCache, open_original
from studio.runtime.model import load_tokenizer
from studio.runtime.sampling import Sampling
from tests.conversations import BOOK, LONG, Counted, last, user


def test_a_step_that_fails_is_not_gone_on_from(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    read = PrefixCache()
    steps = answer(loaded, user(BOOK), LONG, 16, read)
    next(steps)

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(loaded.decoder, "step", fail)
    with pytest.raises(RuntimeError):
        next(steps)
    monkeypatch.undo()
    assert last(answer(loaded, user(BOOK), LONG, 16, read)).kept_tokens == 0


def test_a_model_that_fails_midway_leaves_the_other_alone(folder: Path) -> None:
    broken, whole = (LoadedModel(Counted(open_original(of_folder(folder))), load_tokenizer(folder)) for _ in range(2))  # type: ignore[arg-type]
    step = broken.decoder.step

    def fail(cache: Any, tokens: Sequence[int]) -> torch.Tensor:
        if cache.length > 40:
            raise RuntimeError("the kernel <b>gave up</b>")
        return step(cache, tokens)

    broken.decoder.step = fail  # type: ignore[method-assign]
    *_, replies = side_by_side([answer(one, user("one"), Sampling(max_new_tokens=60)) for one in (broken, whole)])
    assert replies[0].ended == "error"
    assert replies[0].error is not None
    assert replies[0].error.key == "answer_failed"
    assert "gave up" in replies[0].error.sentence()
    assert replies[0].tokens > 5
    assert replies[1].tokens == 60


def test_logits_that_are_no_numbers_end_an_answer(folder: Path) -> None:
    loaded = LoadedModel(Counted(open_original(of_folder(folder))), load_tokenizer(folder))  # type: ignore[arg-type]
    loaded.decoder.step = lambda cache, tokens: torch.full((200,), torch.nan)  # type: ignore[method-assign]
    [*_, (reply,)] = side_by_side([answer(loaded, user("one"), LONG)])
    assert reply.error is not None
    assert reply.error.key == "no_numbers"


def test_an_answer_whose_keys_and_values_do_not_fit_is_refused_with_the_longest_that_would(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    [*_, whole] = answer(loaded, user("one"), Sampling(max_new_tokens=8))
    free = loaded.decoder.kv_bytes(whole.prompt_tokens + 50)
    monkeypatch.setattr(loaded.decoder, "free_bytes", lambda: free)
    with pytest.raises(ResourceError) as caught:
        next(answer(loaded, user("one"), Sampling(max_new_tokens=90)))
    fits = int(str(caught.value.values["fits"]))
    assert 50 <= fits < 90
    next(answer(loaded, user("one"), Sampling(max_new_tokens=fits)))
    with pytest.raises(ResourceError):
        next(answer(loaded, user("one"), Sampling(max_new_tokens=fits + 1)))
