"""The data's way has one direction: a file may import its own package and what lies before it, nothing else."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "studio").rglob("*.py"))

LAYERS = (
    "",  # the package itself: its docstring and version
    "text",
    "errors",
    "units|settings|threads|steps|model_files|license|kept|shelf|memory|interrupts|typed_paths",
    "device|workspace|workers",
    "json_file",
    "config_values",
    "stops",
    "template|guarded",
    "pieces|tokenizer_files",
    "tokenizer_process",
    "tokenizer",
    "headers",
    "weight_files",
    "scheme",
    "rounding",
    "packing",
    "native",
    "machine",
    "quantize|kernels",
    "byte_ranges|hub_client",
    "hub|dataset",
    "source_formats",
    "source_names|configs",
    "module_tree",
    "architecture",
    "checkpoint",
    "gguf_header",
    "gguf_model",
    "gguf_rope",
    "gguf_config|gguf_tensors",
    "gguf_convert",
    "gguf_source",
    "recipe",
    "source",
    "plan",
    "survey",
    "sample",
    "tensor_file",
    "model",
    "decoder",
    "blocks|texts",
    "fisher|tuning|folding",
    "calibrate|guided|layer_figures",
    "damage|output_error",
    "compress",
    "questions",
    "evaluate",
    "drift",
    "export",
    "sampling|detokenize",
    "prompt|generate",
    "chat",
    "parting|verdict|loaded_model",
    "pool",
    "columns|jobs|turns|unfinished",
    "measuring",
    "reading",
    "talk|speed",
    "session",
    "ui",
    "terminal",
    "report",
    "output",
    "__main__",
)
"""Modules and packages directly under ``studio``, lowest first. A new one has to be given its place here; those
between bars may not know each other."""
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer.split("|")}

ONLY_IN = {
    "gradio": ("studio/ui/",),
    "plotly": ("studio/ui/",),
    "huggingface_hub": ("studio/hub.py", "studio/hub_client.py", "studio/export/"),
}
"""Libraries with one home each."""


def imported(source: str, file: str) -> set[str]:
    """Return the dotted names that a file imports anywhere in it, also within functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = Path(file).parts[: -node.level] if node.level else ()
            base = ".".join((*package, node.module) if node.module else package)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def layer_of(file: str) -> str:
    """``studio/kernels/int4.py`` -> ``kernels``; ``studio/__init__.py`` -> ``""``."""
    part = Path(file).parts[1]
    return "" if part == "__init__.py" else part.removesuffix(".py")


def faults(source: str, file: str) -> list[str]:
    """Return what is wrong with the imports of a file, one line each."""
    own = layer_of(file)
    if own not in RANK:
        return [f"studio.{own} has no place in LAYERS"]
    found = []
    for name in sorted(imported(source, file)):
        top, _, rest = name.partition(".")
        if top in ONLY_IN and not file.startswith(ONLY_IN[top]):
            found.append(f"{name} has its home in {' and '.join(ONLY_IN[top])}")
        if top != "studio":
            continue
        other = rest.partition(".")[0]
        other = "" if other.startswith("__") and other != "__main__" else other  # from studio import __version__
        if other not in RANK:
            found.append(f"studio.{other} has no place in LAYERS")
        elif other != own and RANK[other] >= RANK[own]:
            found.append(f"{own or 'studio'} may not import {name}")
    return found


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_what_lies_before_it(file: str) -> None:
    assert faults((ROOT / file).read_text(encoding="utf-8"), file) == []


def test_the_entry_point_knows_only_the_commands() -> None:
    names = imported((ROOT / "app.py").read_text(encoding="utf-8"), "app.py")
    assert [name for name in sorted(names) if not name.startswith("studio.__main__")] == []


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("studio/plan.py", "from studio.session import Session", "plan may not import studio.session.Session"),
        ("studio/plan.py", "import studio.ui.charts", "plan may not import studio.ui.charts"),
        ("studio/plan.py", "from studio import session", "plan may not import studio.session"),
        ("studio/plan.py", "from . import session", "plan may not import studio.session"),
        ("studio/rounding/nearest.py", "from ..packing import pack", "rounding may not import studio.packing.pack"),
        ("studio/plan.py", "def f():\n    import studio.survey", "plan may not import studio.survey"),
        ("studio/headers.py", "import studio.scheme", "headers may not import studio.scheme"),
        ("studio/__init__.py", "import studio.text", "studio may not import studio.text"),
        ("studio/plan.py", "import studio.novelty", "studio.novelty has no place in LAYERS"),
        ("studio/novelty.py", "", "studio.novelty has no place in LAYERS"),
        ("studio/session.py", "import gradio as gr", "gradio has its home in studio/ui/"),
        ("studio/session.py", "from plotly import graph_objects", "plotly.graph_objects has its home in studio/ui/"),
        (
            "studio/source.py",
            "import huggingface_hub",
            "huggingface_hub has its home in studio/hub.py and studio/hub_client.py and studio/export/",
        ),
    ],
)
def test_a_wrong_import_is_found(file: str, source: str, fault: str) -> None:
    assert faults(source, file) == [fault]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("studio/plan.py", "import math\nfrom studio.scheme import Mode\nfrom studio import __version__"),
        ("studio/kernels/int4.py", "from studio.kernels.product import Product\nfrom . import int8"),
        ("studio/ui/charts.py", "import plotly.graph_objects\nimport gradio\nfrom studio.session import Session"),
        ("studio/hub.py", "import huggingface_hub"),
        ("studio/export/upload.py", "import huggingface_hub"),
    ],
)
def test_a_right_import_is_let_pass(file: str, source: str) -> None:
    assert faults(source, file) == []
