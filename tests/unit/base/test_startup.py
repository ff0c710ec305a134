"""What imports the studio keeps its environment; what runs it, and its workers, begin with the studio's."""

import json
import os
import subprocess
import sys

import pytest

from studio.base import startup
from studio.base.workers.environment import environment

CODE = """
import json, os, sys, threading
before = dict(os.environ)
import studio
studio.__version__
{more}
changed = {{name: value for name, value in os.environ.items() if before.get(name) != value}}
heavy = [name for name in ("torch", "transformers", "numpy", "typer", "pydantic") if name in sys.modules]
print(json.dumps([changed, heavy, threading.active_count()]))
"""


def python(more: str, **variables: str) -> list[object]:
    """Return what changed in the environment of a new Python, what it imported of weight, and its threads."""
    clean = {name: value for name, value in os.environ.items() if name not in startup.DEFAULTS}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(more=more)],
        env=clean | variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_importing_the_studio_changes_nothing() -> None:
    assert python("") == [{}, [], 1]


@pytest.mark.parametrize(
    "program",
    [
        "from studio.cli.commands import main; sys.argv = ['studio', 'estimate']",
        "from studio.cli.commands import app as main; sys.argv = ['app.py', 'estimate']",
    ],
    ids=["python -m studio", "app.py"],
)
def test_a_command_begins_with_the_environment_of_programs(program: str) -> None:
    run = f"{program}\ntry:\n    main()\nexcept SystemExit:\n    pass"
    changed, _, _ = python(run, GOMP_SPINCOUNT="77")
    assert isinstance(changed, dict)
    assert {name: changed.get(name) for name in startup.DEFAULTS} == startup.DEFAULTS | {"GOMP_SPINCOUNT": None}


def test_workers_have_it_whoever_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in startup.DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    assert environment().items() >= startup.DEFAULTS.items()
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    assert environment()["GOMP_SPINCOUNT"] == "77"
