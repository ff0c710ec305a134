"""The knapsack's answer is the best there is, and more room never makes it worse."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.planning.knapsack import TOLERANCE, Option, least_loss

OPTIONS = st.lists(st.builds(Option, st.integers(1, 40), st.floats(0, 1, allow_nan=False)), min_size=1, max_size=4)
GROUPS = st.lists(OPTIONS, min_size=1, max_size=5)


def loss(groups: list[list[Option]], taken: list[int] | None) -> float:
    assert taken is not None
    return sum(group[place].loss for group, place in zip(groups, taken, strict=True))


def size(groups: list[list[Option]], taken: list[int] | None) -> int:
    assert taken is not None
    return sum(group[place].size for group, place in zip(groups, taken, strict=True))


def many(groups: int, seed: int = 0) -> list[list[Option]]:
    """Return groups as layers are: a few bits a weight, a quarter of the loss for each bit more, a little uneven."""
    draw = random.Random(seed)
    found = []
    for _ in range(groups):
        weights, cost = draw.choice([110_592, 331_776, 884_736]), draw.lognormvariate(0, 1)
        sizes = [int(weights * bits / 8) for bits in (3.4375, 4.25, 4.5, 5, 5.5, 6, 8.5, 16)]
        found.append([Option(s, cost * 0.25 ** (8 * s / weights) * draw.uniform(0.9, 1.1)) for s in sizes])
    return found


@settings(deadline=None)
@given(GROUPS, st.integers(0, 200))
def test_no_other_choice_within_the_limit_is_better(groups: list[list[Option]], limit: int) -> None:
    every = itertools.product(*(range(len(group)) for group in groups))
    fitting = [list(taken) for taken in every if size(groups, list(taken)) <= limit]
    found = least_loss(groups, limit)
    if not fitting:
        assert found is None
        return
    assert size(groups, found) <= limit
    best = min(loss(groups, taken) for taken in fitting)
    assert loss(groups, found) <= best * (1 + TOLERANCE) + 1e-12


def test_more_room_never_loses_more() -> None:
    groups = many(60)
    low = sum(min(option.size for option in group) for group in groups)
    high = sum(max(option.size for option in group) for group in groups)
    limits = [low + (high - low) * step // 50 for step in range(51)]
    losses = [loss(groups, least_loss(groups, limit)) for limit in limits]
    assert all(after <= before * (1 + TOLERANCE) for before, after in itertools.pairwise(losses))
    assert losses[0] > 100 * losses[-1]


def test_the_ends_are_all_smallest_and_all_best() -> None:
    groups = many(20, seed=1)
    low = sum(min(option.size for option in group) for group in groups)
    assert least_loss(groups, low) == [0] * 20
    assert least_loss(groups, low - 1) is None
    best = least_loss(groups, 10**9)
    assert loss(groups, best) == pytest.approx(sum(min(option.loss for option in group) for group in groups))


def test_it_beats_taking_what_saves_most_first() -> None:
    groups = [[Option(1, 1.0), Option(3, 0.0)], [Option(1, 0.9), Option(2, 0.4)], [Option(1, 0.9), Option(2, 0.35)]]
    assert least_loss(groups, 5) == [0, 1, 1]


def test_a_group_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="without options"):
        least_loss([[]], 1)


def test_no_groups_are_no_problem() -> None:
    assert least_loss([], 5) == []
