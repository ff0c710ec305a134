"""Whether a compressed folder is whole, found out while it is read for something else. Knows no target."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from studio.base.errors import CheckpointError
from studio.checkpoint.recipe import RECIPE, Recipe
from studio.checkpoint.weight_files import listed

PIECE = 4 << 20


@contextmanager
def checking(recipe: Recipe | None, folder: Path) -> Iterator["Future[None]"]:
    """Compare every file of a folder with its recipe in a thread, and give what comes of it; with None, nothing does.

    Its result raises CheckpointError for a file that is missing or another one. Leaving stops the thread.
    """
    is_left = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(_check, recipe, folder, is_left)
        finally:
            is_left.set()


def _check(recipe: Recipe | None, folder: Path, is_left: threading.Event) -> None:
    if recipe is None:
        return
    if recipe.weights_file not in recipe.sha256:
        raise CheckpointError("bad_recipe", file=RECIPE, key="sha256", value="?", reason=recipe.weights_file)
    names = set(listed(folder))
    small_first = sorted(recipe.sha256, key=lambda name: name == recipe.weights_file)
    for name in small_first:
        if name not in names:
            raise CheckpointError("missing_file", file=name[:80])
        found = hashlib.sha256()
        with (folder / name).open("rb", buffering=0) as stream:
            while not is_left.is_set() and (piece := stream.read(PIECE)):
                found.update(piece)
        if not is_left.is_set() and found.hexdigest() != recipe.sha256[name]:
            raise CheckpointError("damaged_file", file=name[:80])
