"""``pip install .``: what is installed is whole, answers from any folder, and needs what requirements.txt lists."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import studio
from studio.checkpoint.checkpoint import Checkpoint
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(
    find_spec("hatchling") is None or find_spec("pip") is None,
    reason="hatchling, which builds the package, or pip is not installed here; requirements-dev.txt names it",
)

BUILT_FROM = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "studio", "assets")
FACTS = """
import importlib.metadata, json, os, sys
before = dict(os.environ)
import studio
from studio.base.assets import asset
from studio.base.text import LANGUAGES, text
package = importlib.metadata.distribution("quantization-studio")
print(json.dumps({
    "folder": os.path.dirname(studio.__file__),
    "version": package.version,
    "requires": package.requires,
    "bytes": studio.estimate("builtin", ratio=0.9).compressed_bytes,
    "texts": len({text("terminal.help", language) for language in LANGUAGES}),
    "style": asset("style.css").is_file(),
    "kernels": __import__("studio.runtime.native.products", fromlist=["products"]).decoding() is not None,
}))
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from."""
    folder = tmp_path_factory.mktemp("copy") / "quantization-studio"
    folder.mkdir()
    for path in [*map(ROOT.joinpath, BUILT_FROM), *ROOT.glob("requirements*.txt")]:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def installed(copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh environment with the package in it; what it depends on is this environment's. Nothing is fetched."""
    place = tmp_path_factory.mktemp("fresh")
    venv.create(place, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    before = listing(copied)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "--quiet"]
    subprocess.run(
        [*pip, "install", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", copied],
        check=True,
    )
    yield place
    assert listing(copied) == before, "building or running wrote to the repository"


def listing(folder: Path) -> dict[str, int]:
    """Return every file with when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def said(installed: Path, *command: str) -> str:
    """Return what a program of the fresh environment says, from a folder that has nothing to do with it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = [str(installed / "bin" / command[0]), *command[1:]]
    done = subprocess.run(program, cwd=installed, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout


def test_it_is_whole_and_answers_from_any_folder(installed: Path, builtin: Checkpoint) -> None:
    facts = json.loads(said(installed, "python", "-c", FACTS))
    assert Path(facts["folder"]).is_relative_to(installed)
    assert facts["version"] == studio.__version__
    assert facts["texts"] == 3
    assert facts["style"]
    assert facts["kernels"]
    assert facts["bytes"] == studio.estimate("builtin", ratio=0.9).compressed_bytes
    ways = (["quantization-studio"], ["python", "-m", "studio"])
    answers = [json.loads(said(installed, *way, "estimate", "builtin", "--ratio", "0.9", "--json")) for way in ways]
    assert [answer["compressed_bytes"] for answer in answers] == [facts["bytes"]] * 2


def test_every_file_goes_with_it(installed: Path, copied: Path) -> None:
    (package,) = installed.glob("lib/python*/site-packages/studio")
    ours = {path.relative_to(copied / "studio") for path in (copied / "studio").rglob("*") if path.is_file()}
    assets = {Path("assets", path.name) for path in (copied / "assets").iterdir() if path.suffix != ".png"}
    theirs = {path.relative_to(package) for path in package.rglob("*") if "__pycache__" not in path.parts}
    assert {path for path in theirs if (package / path).is_file()} == ours | assets
    assert Path("py.typed") in ours


def test_it_needs_what_the_lists_name(installed: Path) -> None:
    facts = json.loads(said(installed, "python", "-c", FACTS))
    needed: dict[str, set[str]] = {}
    for requirement in map(Requirement, facts["requires"]):
        extra = str(requirement.marker).partition("extra == ")[2].strip("\"'")
        needed.setdefault(extra, set()).add(f"{requirement.name}{requirement.specifier}")
    assert {requirement.partition("<")[0].partition(">")[0] for requirement in needed["page"]} == {"gradio", "plotly"}
    assert needed[""] | needed["page"] == listed("requirements.txt")
    assert needed[""] | needed["dev"] == listed("requirements.txt", "requirements-dev.txt")
    lists = ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt")
    assert needed[""] | needed["bench"] == listed(*lists)


def listed(*files: str) -> set[str]:
    """Return the requirements of some lists."""
    lines = [line.partition("#")[0].strip() for file in files for line in (ROOT / file).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("-r ")]
    return {f"{requirement.name}{requirement.specifier}" for requirement in found}
