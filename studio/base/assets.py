"""Files that go with the program: texts that models read, questions, the page's style sheet. Knows not what is in them.

They lie beside the package in a copy of the repository, and within it once it is installed.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def asset(name: str) -> Path:
    """Return the file of this name: ``asset("calibration.txt")``."""
    installed = PACKAGE / "assets"
    return (installed if installed.is_dir() else PACKAGE.parent / "assets") / name
