"""What each engine makes of each target, in which version: ``make engines`` runs the proofs and writes docs/engines.md.

A row is true of the machine and the versions that it names, and of nothing else. Knows no engine but by its tests.
"""

import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.conftest import ROOT
from tests.engines.installed import TRANSFORMERS_JS, WANTED

FILE = ROOT / "docs" / "engines.md"
HEAD = """# Engines

What was written for each target, loaded by the engine that is to run it: `make engines` runs the tests that
`tests/engines/` has of each (the share that `make test` takes) and writes this table. A test that fails is a row that
says so, and so is one that was left out because the engine is not installed. Engines that need a GPU (vLLM, SGLang) or
a Mac (MLX on Metal, LM Studio) were not run.
"""
PATIENCE = 3600


@dataclass(frozen=True)
class Engine:
    """One row: which tests prove it."""

    target: str
    name: str
    packages: tuple[str, ...]
    """Of Python, or ``npm:`` and a name that a package.json pins."""
    file: str
    chosen: str = ""
    """pytest's ``-k``."""
    proof: str = ""
    """What the tests ask."""


ENGINES = (
    Engine("gguf", "llama.cpp", ("npm:node-llama-cpp",), "test_llama_cpp.py", "", "distributions, every kind of block"),
    Engine("gguf", "llama.cpp's tokenizers", ("npm:node-llama-cpp",), "test_tokens.py", "", "the same tokens"),
    Engine("mlx", "mlx-lm on MLX's CPU", ("mlx-lm", "mlx"), "test_mlx.py", "", "logits, an answer, dtypes"),
    Engine("mlx", "read back here", ("mlx",), "test_mlx_read.py", "", "MLX's own packing, bit for bit"),
    Engine("openvino", "OpenVINO", ("openvino",), "test_openvino.py", "", "logits, weights kept packed"),
    Engine(
        "onnx", "onnxruntime", ("onnxruntime", "onnxruntime-genai"), "test_onnx.py",
        "not transformers_js and not browser", "logits, weights kept packed, GenAI's answer",
    ),
    Engine(
        "onnx", "transformers.js under Node", ("npm:@huggingface/transformers",), "test_onnx.py", "transformers_js",
        "the same tokens",
    ),
    Engine(
        "onnx", "transformers.js in Chromium", ("npm:@huggingface/transformers",), "test_onnx.py", "browser",
        "the same tokens",
    ),
    Engine(
        "compressed-tensors", "transformers", ("transformers", "compressed-tensors"), "test_compressed_tensors.py", "",
        "packed when loaded, logits to the bit",
    ),
)  # fmt: skip


def version_of(package: str) -> str:
    """Return ``"name version"`` of an installed package, or of one that npm installs."""
    name = package.removeprefix("npm:")
    if name != package:
        pinned: dict[str, str] = {}
        for file in (WANTED, TRANSFORMERS_JS):
            pinned |= json.loads(file.read_text())["dependencies"]
        return f"{name} {pinned[name]}"
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name}, not installed"


def result_of(engine: Engine) -> str:
    """Run an engine's tests and return what came of them: ``"12 of 12"``."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"tests/engines/{engine.file}", f"--junitxml={report}"]
        command += ["-k", engine.chosen] if engine.chosen else []
        subprocess.run(command, cwd=ROOT, timeout=PATIENCE, check=False, stdout=subprocess.DEVNULL)
        return told(report.read_text(encoding="utf-8"))


def told(report: str) -> str:
    """Return how many of a junit report's cases passed, and of the others how many did what."""
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    counts = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    passed = len(cases) - sum(counts.values())
    others = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return f"{passed} of {len(cases)} cases" + (f" ({others})" if others else "")


def page(rows: Sequence[tuple[Engine, str]]) -> str:
    """Return the whole file."""
    lines = ["| target | engine | version | what is asked | result |", "| --- | --- | --- | --- | --- |"]
    for engine, result in rows:
        versions = ", ".join(map(version_of, engine.packages))
        lines.append(f"| `{engine.target}` | {engine.name} | {versions} | {engine.proof} | {result} |")
    made = f"Run on {platform.system()} {platform.machine()}, Python {platform.python_version()}."
    return "\n".join([HEAD, *lines, "", made, ""])


def main() -> None:
    rows = []
    for engine in ENGINES:
        rows.append((engine, result_of(engine)))
        print(f"{engine.target}, {engine.name}: {rows[-1][1]}", flush=True)
    FILE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
