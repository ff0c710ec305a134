"""Where two answers part: the first token that differs, with what both models thought of it."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from studio.base.errors import ProcessError
from studio.chat.answer import Picked, Reply, look
from studio.chat.divergence import Comparison
from studio.runtime.model import load_tokenizer
from tests.conversations import replies


def looks(tokenizer: Any, answers: Sequence[Sequence[Reply]], stops: set[int] | None = None) -> list[Any]:
    """Return what looks again at each answer's tokens."""

    def looking(grown: Sequence[Reply]) -> Any:
        loaded = SimpleNamespace(tokenizer=tokenizer, stop_ids=frozenset(stops or ()))
        read = SimpleNamespace(recent=[(reply.tokens - 1, reply.newest) for reply in grown])
        return lambda index, tokens: look(loaded, read, index, tokens)  # type: ignore[arg-type]

    return [looking(grown) for grown in answers]


@pytest.mark.parametrize("order", ["by turns", "first ahead", "second ahead"])
def test_the_first_token_that_differs_is_found_with_both_models_probabilities(tiny_model: Any, order: str) -> None:
    tokenizer = load_tokenizer(tiny_model("llama"))
    torch.manual_seed(0)
    scores = torch.randn(2, 4, 50)
    left = replies([5, 6, 7, 8], list(scores[0]), ["The", " cap", " is", " a"])
    right = replies([5, 6, 9, 8], list(scores[1]), ["The", " cap", " was", " a"])
    comparison = Comparison(looks(tokenizer, [left, right]))
    pairs = {
        "by turns": [
            x for pair in zip(enumerate(left), enumerate(right), strict=True) for x in ((0, pair[0]), (1, pair[1]))
        ],
        "first ahead": [(0, x) for x in enumerate(left)] + [(1, x) for x in enumerate(right)],
        "second ahead": [(1, x) for x in enumerate(right)] + [(0, x) for x in enumerate(left)],
    }[order]
    for column, (_, reply) in pairs:
        comparison.hear(column, reply)
        comparison.hear(column, reply)  # shown twice, heard once
    found = comparison.divergence
    assert found is not None
    assert found.index == 2
    assert found.places == ((7, 10), (7, 11))
    assert found.words == (tokenizer.decode([7]), tokenizer.decode([9]))
    for model in range(2):
        expected = scores[model, 2].double().softmax(-1)
        assert found.probabilities[model] == pytest.approx([expected[7].item(), expected[9].item()], rel=1e-4)


def test_answers_that_agree_do_not_part_and_one_that_ends_does(tiny_model: Any) -> None:
    tokenizer = load_tokenizer(tiny_model("llama"))
    scores = list(torch.randn(3, 50))
    same = replies([5, 6, 1], scores, ["a", "b", ""])
    agreeing = Comparison(looks(tokenizer, [same, same], {1}))
    for column in range(2):
        for reply in same:
            agreeing.hear(column, reply)
    assert agreeing.divergence is None
    answers = [replies(ids, scores[:2], ["a", "" if ids[1] == 1 else "b"]) for ids in ([5, 1], [5, 6])]
    ending = Comparison(looks(tokenizer, answers, {1}))
    for column, grown in enumerate(answers):
        for reply in grown:
            ending.hear(column, reply)
    assert ending.divergence is not None
    assert ending.divergence.words[0] == ""
    assert ending.divergence.places[0] == (1, 1)


def test_answers_whose_model_is_lost_are_not_compared_any_more() -> None:
    def lost(index: int, tokens: Sequence[int]) -> Any:
        raise ProcessError("worker_closed")

    comparison = Comparison([lost, lost])
    for column, token in enumerate((5, 6)):
        comparison.hear(column, Reply("a", tokens=1, newest=Picked(token)))
    assert comparison.divergence is None
    assert comparison.is_lost
