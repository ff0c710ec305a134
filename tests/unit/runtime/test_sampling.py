"""How the next token is picked: the likeliest, or by chance that a seed repeats; no value goes beyond its limits."""

import math

import pytest
import torch

from studio.base.errors import PromptError
from studio.runtime.sampling import SAMPLING_LIMITS, Picker, Sampling

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0], dtype=torch.float32)


def drawn(sampling: Sampling, count: int = 200) -> list[int]:
    pick = Picker(sampling, [])
    return [pick(LOGITS) for _ in range(count)]


def test_without_chance_the_likeliest_is_picked() -> None:
    assert set(drawn(Sampling())) == {1}


def test_a_seed_repeats_what_chance_picked_and_another_does_not() -> None:
    first, again, other = (drawn(Sampling(temperature=1.0, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        (Sampling(temperature=1.0), {0, 1, 2, 3}),
        (Sampling(temperature=1.0, top_k=2), {1, 2}),
        (Sampling(temperature=1.0, top_p=0.7), {1, 2}),
        (Sampling(temperature=0.01), {1}),
    ],
    ids=["all", "top-k", "top-p", "cold"],
)
def test_what_can_be_picked(sampling: Sampling, possible: set[int]) -> None:
    assert set(drawn(sampling)) == possible


def test_what_was_said_is_said_less_likely_again() -> None:
    pick = Picker(Sampling(repetition_penalty=10.0), [])
    assert [pick(LOGITS) for _ in range(2)] == [1, 2]
    assert Picker(Sampling(repetition_penalty=10.0), [1])(LOGITS) == 2  # the prompt counts too


@pytest.mark.parametrize("name", SAMPLING_LIMITS)
def test_values_beyond_their_limits_are_refused_by_name(name: str) -> None:
    low, high = SAMPLING_LIMITS[name]
    for value in (low - 1, high + 1, math.nan):
        with pytest.raises(PromptError) as refused:
            Sampling(**{name: value})  # type: ignore[arg-type]
        assert (refused.value.key, refused.value.values["name"]) == ("sampling_range", name)
    for value in (low, high):
        Sampling(**{name: value})  # type: ignore[arg-type]
