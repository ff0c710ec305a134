"""The map's colours: from the first to the last of a ramp, in order, and readable digits on them."""

import pytest

from studio.quantization.scheme import Mode
from studio.ui.palette import (
    BITS_COLOURS,
    BLUE_TO_RED,
    RAMPS,
    SHADES,
    gradient,
    luminance,
    ramp_of,
    shade,
    share_of,
)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


@pytest.mark.parametrize("ramp", [BLUE_TO_RED, *RAMPS.values()])
def test_a_ramp_runs_from_its_first_colour_to_its_last(ramp: tuple[tuple[float, tuple[int, int, int]], ...]) -> None:
    assert rgb(shade(ramp, 0.0)[0]) == ramp[0][1]
    assert rgb(shade(ramp, 1.0)[0]) == rgb(shade(ramp, 7.0)[0]) == ramp[-1][1]
    assert [share for share, _ in ramp] == sorted(share for share, _ in ramp)
    assert all(f"rgb{colour}" in gradient(ramp) for _, colour in ramp)


def test_digits_are_light_where_the_colour_is_dark() -> None:
    assert not shade(BLUE_TO_RED, 0.0)[1]
    assert shade(BLUE_TO_RED, 1.0)[1]


@pytest.mark.parametrize("ramp", [BLUE_TO_RED, *RAMPS.values()])
def test_digits_have_the_contrast_that_wcag_asks_for(ramp: tuple[tuple[float, tuple[int, int, int]], ...]) -> None:
    for level in range(SHADES + 1):
        colour, is_light = shade(ramp, level / SHADES)
        assert contrast(colour, is_light) >= 4.5, colour


@pytest.mark.parametrize("bits", BITS_COLOURS)
def test_digits_can_be_read_on_the_colours_of_bits(bits: int) -> None:
    assert contrast(BITS_COLOURS[bits], bits >= 8) >= 4.5


def contrast(colour: str, is_light: bool) -> float:
    """Return the contrast of white or of black digits to a colour."""
    red, green, blue = rgb(colour)
    ground = luminance((red, green, blue)) + 0.05
    return 1.05 / ground if is_light else ground / 0.05


def test_a_figure_without_a_ramp_of_its_own_has_that_of_all() -> None:
    assert ramp_of("no such figure") is BLUE_TO_RED


def test_every_number_of_bits_has_a_colour() -> None:
    assert {mode.bits for mode in Mode} | {16} <= BITS_COLOURS.keys()


def test_a_scale_with_bounds_goes_by_the_logarithm_and_by_nothing_else_on_show() -> None:
    assert [share_of(nats, 0.0, (1e-5, 1e-1)) for nats in (0.0, 1e-5, 1e-3, 1e-1, 3.0)] == pytest.approx(
        [0, 0, 0.5, 1, 1]
    )
    assert share_of(0.02, 0.04, None) == 0.5
