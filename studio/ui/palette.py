"""The colours of the map: a ramp for each figure, and one colour for each number of bits. Knows no figure's meaning."""

import math
from functools import cache
from itertools import pairwise

Ramp = tuple[tuple[float, tuple[int, int, int]], ...]
"""Share of the largest number -> red, green, blue; between two of them the colours are mixed."""

BLUE_TO_RED: Ramp = ((0.0, (230, 238, 247)), (0.45, (157, 191, 224)), (0.75, (234, 164, 95)), (1.0, (168, 58, 30)))
"""Through orange, which people who are colour-blind tell apart."""
RAMPS: dict[str, Ramp] = {}
"""Figures that have a ramp of their own; all others have :data:`BLUE_TO_RED`."""
BITS_COLOURS = {
    2: "#d5efe9",
    3: "#a9dbd1",
    4: "#7cc0b5",
    5: "#5b9fb0",
    6: "#5194ad",
    7: "#4789a9",
    8: "#38779f",
    16: "#5b5f66",
}
SHADES = 64


def ramp_of(figure: str) -> Ramp:
    """Return the colours of a figure."""
    return RAMPS.get(figure, BLUE_TO_RED)


def shade(ramp: Ramp, share: float) -> tuple[str, bool]:
    """Return the colour of a share of the largest number, and whether white digits are read better on it than black."""
    return _shade(ramp, round(SHADES * min(1.0, share)))


def share_of(number: float, top: float, bounds: tuple[float, float] | None) -> float:
    """Return where a number lies on a scale, 0 to 1: up to ``top``, or between ``bounds`` by its logarithm."""
    if bounds is None:
        return min(1.0, number / top)
    low, high = bounds
    return min(1.0, max(0.0, math.log(max(number, low) / low) / math.log(high / low)))


def gradient(ramp: Ramp) -> str:
    """Return the ramp as CSS draws it."""
    stops = ", ".join(f"rgb{colour} {100 * share:g}%" for share, colour in ramp)
    return f"linear-gradient(90deg,{stops})"


@cache
def _shade(ramp: Ramp, level: int) -> tuple[str, bool]:
    share = level / SHADES
    for (low, first), (high, last) in pairwise(ramp):
        if share <= high:
            part = (share - low) / (high - low)
            red, green, blue = (round(a + (b - a) * part) for a, b in zip(first, last, strict=True))
            return f"#{red:02x}{green:02x}{blue:02x}", is_dark((red, green, blue))
    raise ValueError(level)


def is_dark(colour: tuple[int, int, int]) -> bool:
    """Return whether white has more contrast to a colour than black; the better of the two has 4.58 at least."""
    return luminance(colour) < math.sqrt(1.05 * 0.05) - 0.05


def luminance(colour: tuple[int, int, int]) -> float:
    """Return the relative luminance of an sRGB colour, 0 to 1, as WCAG 2 defines it."""
    shares = (part / 255 for part in colour)
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shares]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
