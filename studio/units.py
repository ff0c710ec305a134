"""Numbers as people read them. Decimal units, as disks and the Hub use them."""


def format_bytes(count: float) -> str:
    """Return ``count`` bytes in the largest decimal unit with three figures: ``"91.2 MB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 99.95 else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def format_count(count: float) -> str:
    """Return a number of parameters: ``"135M"``, ``"7.24B"``."""
    for unit in ("", "K", "M"):
        if abs(count) < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}B"
