"""node-llama-cpp with a prebuilt llama.cpp, once in the tests' cache: ``python -m tests.engines.installed``.

It takes what ``package.json`` pins and nothing else: no script of a package runs, and of the libraries for a dozen
machines only the one that is named comes.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import SHARED

FLAGS = ("--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund")
PATIENCE = 600
"""Seconds for 60 MB."""
WANTED = Path(__file__).with_name("package.json")


def installed() -> Path:
    """Return the folder with node-llama-cpp, fetched where it is not there yet. Skips where it does not run."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or node is None or npm is None:
        pytest.skip("a prebuilt llama.cpp needs x64 Linux, node >= 20 and npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v \n").split(".")[0]) < 20:
        pytest.skip(f"node-llama-cpp needs node >= 20, this is {version.strip()}")
    folder = SHARED / "node"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        done = folder / "installed.json"
        if not done.is_file() or done.read_text() != WANTED.read_text():
            shutil.copy(WANTED, folder / "package.json")
            home = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", str(folder))}
            try:
                asked = subprocess.run(
                    [npm, "install", *FLAGS], cwd=folder, env=home, capture_output=True, text=True, timeout=PATIENCE
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"npm does not install node-llama-cpp within {PATIENCE} s")
            if asked.returncode:
                pytest.skip(f"npm does not install node-llama-cpp: {asked.stderr[-200:]}")
            shutil.copy(WANTED, done)
    return folder


def mlx_lm() -> str:
    """Return the version of mlx-lm, which requirements-dev.txt names. Skips where it is not installed."""
    try:
        return importlib.metadata.version("mlx-lm")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mlx-lm[cpu] is not installed")


if __name__ == "__main__":
    try:
        print(f"mlx-lm: {mlx_lm()}")
    except pytest.skip.Exception as reason:
        print(f"LEFT OUT, the tests in a real mlx-lm: {reason}.")
    try:
        print(f"llama.cpp: {installed()}")
    except pytest.skip.Exception as reason:
        print(f"LEFT OUT, the tests in a real llama.cpp: {reason}.")
