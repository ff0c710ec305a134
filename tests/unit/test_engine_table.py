"""The table of engines has a row of every target for other programs, and says what failed."""

from studio.export.targets import DEFAULT, TARGETS
from tests.conftest import ROOT
from tests.engines.table import ENGINES, FILE, told, version_of


def test_every_target_for_other_programs_has_an_engine() -> None:
    assert {engine.target for engine in ENGINES} == set(TARGETS) - {DEFAULT}
    for engine in ENGINES:
        assert (ROOT / "tests" / "engines" / engine.file).is_file()
        assert engine.proof


def test_the_page_is_of_these_engines() -> None:
    rows = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[:2] for row in rows] == [[f"| `{each.target}`", each.name] for each in ENGINES]


def test_what_failed_is_said() -> None:
    case = '<testcase name="{}">{}</testcase>'
    cases = "".join(case.format(kind, f"<{kind}/>" if kind else "") for kind in ("", "", "failure", "skipped"))
    assert told(f"<testsuites><testsuite>{cases}</testsuite></testsuites>") == "2 of 4 cases (1 failure, 1 skipped)"
    assert told(f"<testsuite>{case.format('x', '')}</testsuite>") == "1 of 1 cases"


def test_a_version_is_that_of_the_package() -> None:
    assert version_of("npm:node-llama-cpp").startswith("node-llama-cpp 3.")
    assert version_of("torch").startswith("torch 2.")
    assert version_of("no-such-package") == "no-such-package, not installed"
