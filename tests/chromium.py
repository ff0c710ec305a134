"""Which browser the tests drive: the distribution's, without a window of its own where there is such a build."""

import shutil

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first draws no frame of a browser around each page, which costs as much as a fifth of loading ours."""


def chromium() -> str:
    """Return the program's path. Raises FileNotFoundError where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise FileNotFoundError("There is no Chromium here; install it with: make browser")
    return program
