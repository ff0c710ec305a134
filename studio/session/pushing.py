"""An export, or a compressed folder written for the programs asked for, -> the Hub. Knows no page and no terminal."""

import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from studio.base.errors import SchemeError
from studio.base.progress import Progress
from studio.base.workspace import own_folder, sessions_folder
from studio.checkpoint.recipe import is_compressed
from studio.export import studio_folder
from studio.export.bundle import export_folder
from studio.export.push import Destination, Pushed, check_name, pushed
from studio.export.push_files import files_of
from studio.export.target import Target
from studio.export.targets import export


def pushing(
    sources: Sequence[Path], targets: Sequence[Target], destination: Destination, token: str
) -> Generator[Progress, None, Pushed]:
    """Send an export to the Hub; of a folder that ``compress`` made, what ``targets`` make of it, beside each other.

    One target that is a folder is the repository; of several, each folder is one there, and files stand at its top with
    card, map, recipe and manifest. Raises what writing them raises, and :func:`studio.export.push.pushed`.
    """
    check_name(destination.repo)
    with _own_place() as place:
        if targets:
            sources = [(yield from _written(sources, targets, place))]
        files = yield from files_of(sources)
        return (yield from pushed(files, destination, token))


def _written(sources: Sequence[Path], targets: Sequence[Target], place: Path) -> Generator[Progress, None, Path]:
    """Return what is pushed of a compressed folder: a folder written for it, or, for this studio, itself."""
    if len(sources) != 1 or not is_compressed(sources[0]):
        raise SchemeError("push_to_what", path=str(sources[0])[:120])
    [folder] = sources
    if [target.name for target in targets] == [studio_folder.TARGET.name]:
        return folder
    if len(targets) == 1 and not targets[0].suffix:
        return (yield from export(targets[0], folder, place / "export", check=True))
    return (yield from export_folder(targets, folder, place / "export", check=True))


@contextmanager
def _own_place() -> Iterator[Path]:
    """Lend a folder of our own, gone afterwards."""
    place = own_folder(sessions_folder())
    try:
        place.mkdir(parents=True)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
