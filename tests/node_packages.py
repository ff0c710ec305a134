"""Packages of npm for the tests, once in their cache: what a ``package.json`` pins, and no script of any runs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import SHARED

FLAGS = ("--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund")
PATIENCE = 600
"""Seconds for 60 MB."""


def installed(wanted: Path, name: str) -> Path:
    """Return the cache's folder ``name`` with what ``wanted`` pins, fetched where it is not there yet.

    Skips where npm is missing or does not install it.
    """
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is missing")
    folder = SHARED / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        done = folder / "installed.json"
        if not done.is_file() or done.read_text() != wanted.read_text():
            shutil.copy(wanted, folder / "package.json")
            home = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", str(folder))}
            try:
                asked = subprocess.run(
                    [npm, "install", *FLAGS], cwd=folder, env=home, capture_output=True, text=True, timeout=PATIENCE
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"npm does not install {name} within {PATIENCE} s")
            if asked.returncode:
                pytest.skip(f"npm does not install {name}: {asked.stderr[-200:]}")
            shutil.copy(wanted, done)
    return folder
