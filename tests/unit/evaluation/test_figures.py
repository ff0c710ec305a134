"""How figures of windows add up, and how two models are compared on the same ones."""

import pytest

from studio.evaluation.figures import paired


def test_what_makes_a_window_hard_falls_out_of_a_pair() -> None:
    hard = [0.1, 0.9, 0.3, 0.7]
    found = paired(hard, [window + 0.02 for window in hard])
    assert found is not None
    assert found.mean == pytest.approx(0.02)
    assert found.standard_error == pytest.approx(0, abs=1e-6)


def test_a_shorter_reading_is_compared_on_what_both_read() -> None:
    found = paired([0.1, 0.2], [0.3, 0.3, 9.0])
    assert found is not None
    assert found.mean == pytest.approx(0.15)
    assert paired([], [0.1]) is None
