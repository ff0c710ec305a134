"""A loss in numbers: as many digits as say something, and never one that reads as nothing lost at all."""

import pytest

from studio.session.decision import Loss
from studio.ui.verdict import figure


@pytest.mark.parametrize(
    ("kld", "error", "said"),
    [
        (0.1133, 0.0090, "0.113 ± 0.009"),
        (0.00143, 0.00009, "0.0014 ± 0.0001"),
        (0.000213, 0.000031, "0.00021 ± 0.00003"),
        (0.0, 0.0, "<\u20090.00001 "),
        (0.000004, 0.000001, "<\u20090.00001 "),
    ],
)
def test_a_measured_loss_has_digits_that_say_something(kld: float, error: float, said: str) -> None:
    assert said in figure(Loss(kld, error, 0.01, "measured"), "en")


def test_a_predicted_loss_is_about() -> None:
    assert "~\u20090.00012 " in figure(Loss(0.000123, None, 0.01, "predicted"), "en")
