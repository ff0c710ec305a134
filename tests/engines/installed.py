"""Engines of npm, once in the tests' cache: node-llama-cpp with a prebuilt llama.cpp, and transformers.js.

``python -m tests.engines.installed`` fetches them. It takes what each ``package.json`` pins and nothing else: no script
of a package runs, and of llama.cpp's libraries for a dozen machines only the one that is named comes.
"""

import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import node_packages

WANTED = Path(__file__).with_name("package.json")
TRANSFORMERS_JS = Path(__file__).with_name("transformers_js") / "package.json"


def installed() -> Path:
    """Return the folder with node-llama-cpp, fetched where it is not there yet. Skips where it does not run."""
    _check_node("a prebuilt llama.cpp")
    return node_packages.installed(WANTED, "node")


def transformers_js() -> Path:
    """Return the folder with transformers.js and its onnxruntime, fetched where it is not there yet. Skips likewise."""
    _check_node("transformers.js here")
    return node_packages.installed(TRANSFORMERS_JS, "transformers.js")


def _check_node(what: str) -> None:
    """Skip where node does not run it."""
    node = shutil.which("node")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or node is None:
        pytest.skip(f"{what} needs x64 Linux, node >= 20 and npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v \n").split(".")[0]) < 20:
        pytest.skip(f"{what} needs node >= 20, this is {version.strip()}")


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
    try:
        print(f"transformers.js: {transformers_js()}")
    except pytest.skip.Exception as reason:
        print(f"LEFT OUT, the test in a real transformers.js: {reason}.")
