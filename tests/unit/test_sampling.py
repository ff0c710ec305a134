"""What runs of a large product: each word of its cases' names, the same cases on every machine."""

from typing import Any

import pytest

from tests.sampling import ENOUGH, covering, sampled


class Case:
    """As much of a test as is asked for."""

    def __init__(self, nodeid: str, **marks: Any) -> None:
        self.nodeid = nodeid
        self._marks = {name: getattr(pytest.mark, name)(value).mark for name, value in marks.items()}

    def get_closest_marker(self, name: str) -> Any:
        return self._marks.get(name)


MODES, GROUPS = [f"int{bits}" for bits in range(2, 40)], ["g32", "g64", "g128"]
PRODUCT: list[Any] = [Case(f"test_a.py::test_one[{mode}-{group}]") for mode in MODES for group in GROUPS]


def test_each_mode_and_each_group_runs() -> None:
    names = [case.nodeid.partition("[")[2].rstrip("]").split("-") for case in covering(PRODUCT)]
    assert {mode for mode, _ in names} == {*MODES}
    assert {group for _, group in names} == {*GROUPS}
    assert len(MODES) <= len(names) < len(PRODUCT) / 2


def test_the_order_of_cases_makes_no_difference() -> None:
    assert {case.nodeid for case in covering(PRODUCT)} == {case.nodeid for case in covering(PRODUCT[::-1])}


def test_what_is_few_runs_whole_and_what_is_thorough_does_not() -> None:
    few: list[Any] = [Case(f"test_a.py::test_two[{number}]") for number in range(ENOUGH)]
    long: Any = Case("test_a.py::test_three", thorough=True)
    shared: list[Any] = [Case(f"test_a.py::test_four[{number}]", share=4) for number in range(40)]
    kept, left = sampled([*few, long, *shared])
    assert [item for item in kept if item in few] == few
    assert long in left
    assert sum(item in kept for item in shared) == 10
    assert len(kept) + len(left) == ENOUGH + 1 + 40
