"""Some of the files of ``make hostile``, each opened as a user would: refused for the true reason, or harmless."""

import subprocess
import sys

from tests.conftest import ROOT
from tests.corpus.run import KINDS

EVERY = "15"
"""Of a kind; ``make hostile`` opens all."""


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    assert sum(map(len, KINDS.values())) >= 80
    for cases in KINDS.values():
        assert len({case.name for case in cases}) == len(cases)


def test_hostile_files_are_refused_for_the_true_reason_or_harmless() -> None:
    """In a process that has computed nothing yet, for the runner forks."""
    program = [sys.executable, "-W", "ignore", "-m", "tests.corpus", "--every", EVERY]
    ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=850, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " 0 wrong" in ran.stdout
