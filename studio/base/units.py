"""Numbers as people read them. Decimal units, as disks and the Hub use them. Knows no language."""


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
