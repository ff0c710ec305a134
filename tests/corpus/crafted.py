"""Requests that somebody made up to do harm, sent to the page: the tests that do so, counted. Knows none of them."""

import re
import subprocess
import sys
from collections.abc import Sequence

from tests.bench.rows import Row
from tests.conftest import ROOT

TESTS = ("tests/unit/ui/door", "tests/integration/page/test_strangers.py")
"""Names of other servers, scripts of other pages, sessions and files of other visitors, floods."""


def crafted(tests: Sequence[str] = TESTS) -> Row:
    """Run them, and return what came of it."""
    program = [sys.executable, "-W", "ignore", "-m", "pytest", "-q", *tests]
    ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    return row_of(ran.stdout, ran.returncode)


def row_of(said: str, status: int) -> Row:
    """Return the row of what pytest said, and how it ended."""
    counts = [sum(map(int, re.findall(rf"(\d+) {word}", said))) for word in ("passed", "failed", "error")]
    found = f"{counts[0]} tests held, {counts[1] + counts[2]} did not"
    return Row("crafted requests, as tests", found, "all hold", holds=status == 0 and counts[0] > 0)
