"""The guess of how often the first choice differs, against every row that was measured."""

import re
from pathlib import Path

import pytest

from studio.evaluation.first_choice import differing_share

ROWS = (Path(__file__).resolve().parents[2] / "bench" / "QUALITY.md").read_text(encoding="utf-8")


def test_it_is_within_an_eighth_of_every_measured_row() -> None:
    found = re.findall(r"\| (\d\.\d{4}) ± [^|]+\|[^|]+\|[^|]+\| ([\d.]+) ± ", ROWS)
    assert len(found) > 30
    for kld, same in found:
        assert differing_share(float(kld)) == pytest.approx(1 - float(same) / 100, rel=0.15)


def test_it_is_a_share() -> None:
    assert differing_share(0) == 0
    assert differing_share(-1e-9) == 0
    assert differing_share(100) == 1
