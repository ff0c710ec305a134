"""What the package depends on, read from the lists that ``make`` and a Space install: each library stands in one place.

The page's libraries are an extra: neither the terminal's other commands nor ``import studio`` need them.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGE = frozenset({"gradio", "plotly"})
EXTRAS = {"dev": "requirements-dev.txt", "bench": "requirements-bench.txt"}


class Requirements(MetadataHookInterface):
    """Hatchling's hook for what ``pyproject.toml`` calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in dependencies and extras."""
        root = Path(self.root)
        everything = requirements(root / "requirements.txt")
        page = [line for line in everything if name_of(line) in PAGE]
        core = [line for line in everything if line not in page]
        extras = {extra: requirements(root / file) for extra, file in EXTRAS.items()}
        metadata["dependencies"] = core
        metadata["optional-dependencies"] = {"page": page} | {
            extra: [line for line in lines if line not in core] for extra, lines in extras.items()
        }


def requirements(file: Path) -> list[str]:
    """Return the requirements of a list and of those that it names with ``-r``, without comments."""
    found: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        word = line.partition("#")[0].strip()
        if word.startswith("-r "):
            found += requirements(file.parent / word.removeprefix("-r ").strip())
        elif word:
            found.append(word)
    return found


def name_of(requirement: str) -> str:
    """``gradio>=6.31,<7`` -> ``gradio``."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()
