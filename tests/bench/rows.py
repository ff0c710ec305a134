"""The table of what a page that strangers use promises: what was found of each row, what must be, and what is aimed at.

Each row is measured by a command of its own, some of which take an hour; what they found is kept in ``safety.json``
beside this file, with the day, so that ``make bench-load`` prints all of them. Knows no page and no visitor.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("safety.json")
BEGIN, END = "<!-- what was found, by make bench-load -->", "<!-- until here -->"
"""Around the table in ``docs/security.md``."""


@dataclass(frozen=True)
class Row:
    """One promise."""

    what: str
    found: str
    must: str
    goal: str = ""
    holds: bool = False
    """Whether what must be is so."""
    reaches: bool = False
    """Whether what is aimed at is so, too."""
    day: str = ""
    """When it was found, filled in as it is noted."""

    @property
    def reached(self) -> str:
        if not self.must:
            return ""
        return "no" if not self.holds else "goal" if self.goal and self.reaches else "must"


def note(name: str, row: Row, file: Path = FILE) -> None:
    """Keep what was found of the row called ``name``, instead of what was found before."""
    rows = _read(file)
    rows[name] = asdict(row) | {"day": f"{datetime.now(UTC):%Y-%m-%d}"}
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def noted(file: Path = FILE) -> dict[str, Row]:
    """Return what was found by other commands, by name."""
    return {name: Row(**row) for name, row in _read(file).items()}


def _read(file: Path) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    return rows


def markdown(rows: list[Row]) -> str:
    """Return the table."""
    cells = [(row.what, row.found, row.must, row.goal, row.reached) for row in rows]
    lines = ["| | found | must | goal | reached |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(each)} |" for each in cells)]) + "\n"


def between(page: str, table: str) -> str:
    """Return a page with the table in its place. Raises ValueError where the page has no such place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{table}{END}{after}"
