"""The data's way has one direction: a room may import those below it, and within a room no import runs in a circle."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ORDER = (
    "base",
    "quantization",
    "checkpoint",
    "runtime",
    "calibration|chat",
    "planning|evaluation",
    "compression",
    "export",
    "session",
    "ui",
    "cli",
)
"""The rooms of ``studio``, lowest first; those between bars do not know each other."""
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms.split("|")}
ENTRIES = {*RANK, "__init__.py", "__main__.py", "py.typed"}
"""All that may stand at the top of ``studio``."""

ONLY_IN = {
    "gradio": ("studio/ui/",),
    "plotly": ("studio/ui/",),
    "huggingface_hub": ("studio/checkpoint/hub", "studio/export/"),
}
"""Libraries with one home each."""


def module_of(file: str) -> str:
    """``studio/runtime/kernels/__init__.py`` -> ``studio.runtime.kernels``."""
    parts = Path(file).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "studio").rglob("*.py")
}
MODULES = {module_of(file): file for file in SOURCES}


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


def modules_in(names: Iterable[str]) -> set[str]:
    """Return the modules of ours among imported names: ``studio.base.errors.UserError`` -> ``studio.base.errors``."""
    ours = (name for name in names if name.startswith("studio.") and not name.startswith("studio.__version"))
    owners = ((name, name.rpartition(".")[0]) for name in ours)
    return {name if name in MODULES or owner == "studio" else owner for name, owner in owners}


def room_of(module: str) -> str:
    """``studio.runtime.kernels.int4`` -> ``runtime``."""
    return module.split(".")[1] if "." in module else ""


def faults(source: str, file: str) -> list[str]:
    """Return what is wrong with the imports of a file, one line each."""
    own = module_of(file)
    room = room_of(own)
    if own not in ("studio", "studio.__main__") and room not in RANK:
        return [f"{own} stands in no room"]
    found = []
    names = imported(source, file)
    for name in sorted(names):
        if name.partition(".")[0] in ONLY_IN and not file.startswith(ONLY_IN[name.partition(".")[0]]):
            homes = ONLY_IN[name.partition(".")[0]]
            found.append(f"{name} has its home in {' and '.join(homes)}")
    for other in sorted(modules_in(names)):
        if room_of(other) not in RANK or other not in MODULES:
            found.append(f"{other} stands in no room")
        elif room in RANK and room_of(other) != room and RANK[room_of(other)] >= RANK[room]:
            found.append(f"{own} may not import {other}")
    return found


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the modules that import themselves by way of others of their room (Tarjan's components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        path.append(module)
        for other in sorted(edges.get(module, set())):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in path:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            start = path.index(module)
            if len(path) - start > 1:
                found.append(sorted(path[start:]))
            del path[start:]

    for module in sorted(edges):
        if module not in order:
            visit(module)
    return found


def test_a_file_imports_only_what_lies_below_it() -> None:
    assert [f"{file}: {fault}" for file, source in sorted(SOURCES.items()) for fault in faults(source, file)] == []


@pytest.mark.parametrize("room", RANK)
def test_no_import_runs_in_a_circle_within_a_room(room: str) -> None:
    edges = {
        module: {other for other in modules_in(imported(SOURCES[file], file)) if room_of(other) == room}
        for module, file in MODULES.items()
        if room_of(module) == room
    }
    assert edges
    assert circles(edges) == []


def test_circles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert circles(edges) == [["b", "c"]]


def test_only_rooms_stand_at_the_top() -> None:
    entries = {path.name for path in (ROOT / "studio").iterdir() if path.name != "__pycache__"}
    assert entries <= ENTRIES
    assert {room for room in RANK if (ROOT / "studio" / room / "__init__.py").is_file()} == set(RANK)


def test_the_entry_point_knows_only_the_commands() -> None:
    names = imported((ROOT / "app.py").read_text(encoding="utf-8"), "app.py")
    assert sorted(names) == ["studio.cli.commands.app"]


PLAN = "studio/planning/plan.py"
SESSION = "studio.planning.plan may not import studio.session.session"


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        (
            PLAN,
            "from studio.session.session import Session",
            "studio.planning.plan may not import studio.session.session",
        ),
        (PLAN, "import studio.ui.page", "studio.planning.plan may not import studio.ui.page"),
        (PLAN, "from studio.ui import page", "studio.planning.plan may not import studio.ui.page"),
        (PLAN, "from ..session import session", SESSION),
        (PLAN, "def f():\n    import studio.ui.page", "studio.planning.plan may not import studio.ui.page"),
        (PLAN, "import studio.evaluation.drift", "studio.planning.plan may not import studio.evaluation.drift"),
        (PLAN, "import studio.novelty", "studio.novelty stands in no room"),
        ("studio/novelty.py", "", "studio.novelty stands in no room"),
        ("studio/session/session.py", "import gradio as gr", "gradio has its home in studio/ui/"),
        (PLAN, "from plotly import graph_objects", "plotly.graph_objects has its home in studio/ui/"),
    ],
)
def test_a_wrong_import_is_found(file: str, source: str, fault: str) -> None:
    assert faults(source, file) == [fault]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (PLAN, "import math\nfrom studio.quantization.scheme import Mode\nfrom studio import __version__"),
        ("studio/runtime/kernels/int4.py", "from studio.runtime.kernels.product import Product\nfrom . import int8"),
        ("studio/ui/page.py", "import plotly.graph_objects\nimport gradio\nfrom studio.session.session import Session"),
        ("studio/checkpoint/hub.py", "import huggingface_hub"),
        ("studio/export/upload.py", "import huggingface_hub"),
    ],
)
def test_a_right_import_is_let_pass(file: str, source: str) -> None:
    assert faults(source, file) == []
