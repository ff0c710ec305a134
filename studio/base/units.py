"""Numbers as people read them. Decimal units, as disks and the Hub use them. Knows no language."""

import re

SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_bytes(said: str) -> int:
    """Return how many bytes ``"10GB"`` or ``"1.5 TB"`` are. Raises ValueError for other words."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?B|)", said.strip().upper(), re.ASCII)
    if found is None:
        raise ValueError(said)
    return int(float(found[1]) * SIZES[found[2]])


def format_bytes(count: float) -> str:
    """Return ``count`` bytes in the largest decimal unit with three figures: ``"91.2 MB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{_figures(count)} {unit}"
        count /= 1000
    return f"{_figures(count)} TB"


def format_count(count: float) -> str:
    """Return a number of parameters: ``"135M"``, ``"7.24B"``."""
    for unit in ("", "K", "M"):
        if abs(count) < 999.5:
            return f"{_figures(count)}{unit}"
        count /= 1000
    return f"{_figures(count)}B"


def _figures(number: float) -> str:
    """Return three figures, or all before the point where there are more."""
    return f"{number:.0f}" if abs(number) >= 99.95 else f"{number:.3g}"
