"""Lines of text for a picture, by the widths that letters mostly have, for SVG breaks none. Knows no fonts."""

import unicodedata
from dataclasses import dataclass

NARROW, WIDE = 0.54, 1.0
"""Ems of a letter of an alphabet, and of a character of Chinese."""


@dataclass(frozen=True)
class Line:
    """A line, and where it begins in the whole text."""

    text: str
    start: int

    def cut(self, mark: tuple[int, int] | None) -> list[tuple[str, bool]]:
        """Return the line's pieces in order, each with whether it lies within ``mark``; none of them is empty."""
        if mark is None:
            return [(self.text, False)]
        low, high = (min(max(0, place - self.start), len(self.text)) for place in mark)
        pieces = [(self.text[:low], False), (self.text[low:high], True), (self.text[high:], False)]
        return [piece for piece in pieces if piece[0]] or [("", False)]


def plain(words: str) -> str:
    """Return as many characters, each of which XML may hold: breaks and what is not printed are blanks."""
    return "".join(c if c.isprintable() and c not in "\ufffe\uffff" else " " for c in words)


def width(words: str) -> float:
    """Return about how many ems some words are wide."""
    return sum(WIDE if unicodedata.east_asian_width(c) in "WF" else NARROW for c in words)


def wrapped(words: str, ems: float, most: int) -> list[Line]:
    """Return the text in at most ``most`` lines of about ``ems`` ems; what is left ends in a sign of more."""
    lines: list[Line] = []
    start = 0
    while start < len(words) and len(lines) < most:
        end = _end(words, start, ems)
        lines.append(Line(words[start:end], start))
        start = end
    if start < len(words) and lines:
        last = lines[-1]
        lines[-1] = Line(last.text[:-1].rstrip() + "…", last.start)
    return lines


def _end(words: str, start: int, ems: float) -> int:
    """Return where the line that begins at ``start`` ends: after a blank or a Chinese character where there is one."""
    used, end = 0.0, start
    while end < len(words) and used + width(words[end]) <= ems:
        used += width(words[end])
        end += 1
    if end == len(words):
        return end
    breaks = (i + 1 for i in range(end - 1, start, -1) if words[i] == " " or width(words[i]) == WIDE)
    return next(breaks, max(end, start + 1))
