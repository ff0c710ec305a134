"""node-llama-cpp with a prebuilt llama.cpp, once in the tests' cache: ``python -m tests.engines.installed``.

It takes what ``package.json`` pins and nothing else: no script of a package runs, and of the libraries for a dozen
machines only the one that is named comes.
"""

import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import node_packages

WANTED = Path(__file__).with_name("package.json")


def installed() -> Path:
    """Return the folder with node-llama-cpp, fetched where it is not there yet. Skips where it does not run."""
    node = shutil.which("node")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or node is None:
        pytest.skip("a prebuilt llama.cpp needs x64 Linux, node >= 20 and npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v \n").split(".")[0]) < 20:
        pytest.skip(f"node-llama-cpp needs node >= 20, this is {version.strip()}")
    return node_packages.installed(WANTED, "node")


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
