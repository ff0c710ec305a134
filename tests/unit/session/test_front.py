"""A front's points are in order, those that were measured are compared in pairs on the windows that both read."""

import pytest

from studio.evaluation.figures import Evaluation, WindowMean
from studio.session.front import Front, FrontPoint, compared, spread

NOTHING = WindowMean(0.0, None)


def evaluation(*windows: float) -> Evaluation:
    mean = WindowMean(sum(windows) / len(windows), 0.01)
    return Evaluation(NOTHING, NOTHING, mean, 0.0, 0.0, NOTHING, 512, 2, 2, kld_of_windows=windows)


def point(name: str, nbytes: int, *windows: float) -> FrontPoint:
    found = evaluation(*windows) if windows else None
    return FrontPoint("plan", name, nbytes, 4.0, ("export",), 0.5, None, found)


def a_front() -> Front:
    points = (point("small", 10, 0.3, 0.5), point("guess", 15), point("large", 20, 0.1, 0.2))
    return Front("model", 100, 200, points)


def test_what_was_measured_is_compared_with_the_next_larger_one() -> None:
    [pair] = a_front().pairs()
    assert (pair.better.name, pair.worse.name, pair.windows) == ("large", "small", 2)
    assert pair.gain.mean == pytest.approx(0.25)
    assert pair.gain.standard_error == pytest.approx(0.05)


def test_the_better_one_comes_first_whichever_is_larger() -> None:
    pair = compared(point("a", 1, 0.1, 0.1), point("b", 2, 0.4, 0.3))
    assert pair is not None
    assert pair.better.name == "a"
    assert pair.gain.mean == pytest.approx(0.25)
    assert compared(point("a", 1, 0.1), point("guess", 2)) is None


def test_a_loss_is_the_measured_one_where_there_is_one() -> None:
    small, guess, _ = a_front().points
    assert small.kld == pytest.approx(0.4)
    assert guess.kld == 0.5


@pytest.mark.parametrize(
    ("count", "wanted", "places"), [(5, 0, []), (5, 1, [2]), (5, 2, [0, 4]), (5, 3, [0, 2, 4]), (2, 9, [0, 1])]
)
def test_some_of_many_stand_far_from_each_other(count: int, wanted: int, places: list[int]) -> None:
    assert spread(count, wanted) == places
