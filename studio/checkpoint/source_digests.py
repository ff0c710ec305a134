"""Checksums of the files that a model was read from, for a recipe. Knows nothing of what is in them.

A file that is large is read once: what was found is kept with the file's size and time. The Hub's client stores a large
file under its checksum, which then needs no reading.
"""

import hashlib
import re
from collections.abc import Generator
from pathlib import Path

from studio.base import json_cache
from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.typed_paths import typed_path
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.file_names import INDEX
from studio.checkpoint.gguf.model import parts_beside
from studio.checkpoint.hub import is_wanted
from studio.checkpoint.json_file import read_json
from studio.checkpoint.open_model import BUILTIN, builtin_file
from studio.checkpoint.recipe import Source
from studio.checkpoint.weight_files import listed, weight_files

PIECE = 16 << 20
"""Bytes read at once."""
REMEMBERED = 16 << 20
"""Bytes of a file from which its checksum is kept."""
DIGEST = re.compile(r"[0-9a-f]{64}")


def source_digests(checkpoint: Checkpoint) -> Generator[Progress, None, dict[str, str]]:
    """Yield the bytes done and return the SHA-256 of each file that the model is read from, by the file's name.

    Weights, config and tokenizer; of a GGUF model its own files. Raises CheckpointError for one that is gone.
    """
    files = source_files(checkpoint)
    total = sum(file.stat().st_size for file in files)
    done, digests = 0, dict[str, str]()
    for file in files:
        size = file.stat().st_size
        known = _kept_name(file) or json_cache.recall(_memory(file))
        if not (isinstance(known, str) and DIGEST.fullmatch(known)):
            known = yield from _digest(file, done, total)
            if size > REMEMBERED:
                json_cache.keep(_memory(file), known)
        digests[file.name] = known
        done += size
    return digests


def check_source(source: Source, digests: dict[str, str]) -> None:
    """Raise CheckpointError where files are not those that a recipe was made from."""
    for name, digest in source.files.items():
        if digests.get(name) != digest:
            raise CheckpointError("recipe_source", file=name[:80], model=source.model[:80])


def source_files(checkpoint: Checkpoint) -> list[Path]:
    """Return the files that a model on this machine is read from."""
    file = builtin_file() if checkpoint.name == BUILTIN else typed_path(checkpoint.name)
    if file is not None and file.suffix == ".gguf" and file.is_file():
        return parts_beside(file)
    folder = checkpoint.path
    names = listed(folder)
    weights = weight_files(names, lambda name: read_json(folder / name))
    beside = [name for name in names if is_wanted(name) and name != INDEX and name not in weights]
    return [folder / name for name in sorted([*weights, *beside])]


def _digest(file: Path, before: int, total: int) -> Generator[Progress, None, str]:
    found, done = hashlib.sha256(), before
    try:
        with file.open("rb") as stream:
            while piece := stream.read(PIECE):
                found.update(piece)
                done += len(piece)
                yield Progress.of_bytes("finish", done, total)
    except OSError as error:
        raise CheckpointError("missing_file", file=file.name[:80]) from error
    return found.hexdigest()


def _kept_name(file: Path) -> str | None:
    """Return the checksum that a file of the Hub's cache is stored under, None of another."""
    target = file.resolve()
    is_blob = file.is_symlink() and target.parent.name == "blobs"
    return target.name if is_blob and DIGEST.fullmatch(target.name) else None


def _memory(file: Path) -> Path:
    """Return where the checksum of a file is kept, as long as its size and time are the same."""
    facts = file.stat()
    key = (str(file.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ino)
    return settings().cache_dir / "digests" / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.json"
