"""What goes to the Hub: the files of an export, each by its path in the repository, checked before the first is sent.

Three kinds of folder are known: one that ``compress`` made (its recipe has checksums), one with files for several
programs (its manifest has), and a folder that one program loads, which its card names; and single GGUF files. A file
that the export did not write is refused by name. Knows no network.
"""

import hashlib
import os
from collections.abc import Generator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import yaml

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.checkpoint.file_names import CARD, CONFIG, MANIFEST, RECIPE, WEIGHTS
from studio.checkpoint.hub import is_wanted
from studio.checkpoint.json_file import read_json
from studio.checkpoint.recipe import is_compressed, read_recipe
from studio.export.bundle import FORMAT

TAG = "quantization-studio"
"""What the cards of all our exports are tagged with."""
GGUF, MAGIC = ".gguf", b"GGUF"
MAX_CARD = 64_000
MAX_FILES = 1000
PIECE = 4 << 20
OF_PROGRAMS = frozenset(
    {CARD, WEIGHTS, "genai_config.json"}
    | {f"openvino_{part}.{kind}" for part in ("model", "tokenizer", "detokenizer") for kind in ("xml", "bin")}
    | {f"onnx/model{kind}.onnx{part}" for kind in ("", "_q4", "_quantized") for part in ("", "_data")}
)
"""What targets write that one program loads, beside what any model has; such a folder has no checksums."""
Files = Mapping[str, Path]


def files_of(sources: Sequence[Path]) -> Generator[Progress, None, Files]:
    """Yield bytes read and return path in the repository -> file, of one folder or of GGUF files.

    Raises CheckpointError for what is no export, for a link, and for a file that is not what a checksum promises.
    """
    if len(sources) == 1 and sources[0].is_dir():
        return (yield from _of_folder(sources[0]))
    found: dict[str, Path] = {}
    for file in sources:
        if not file.is_file() or file.suffix.lower() != GGUF or _beginning(file) != MAGIC:
            raise CheckpointError("push_no_export", path=file)
        if file.name in found:
            raise CheckpointError("push_twice", file=file.name)
        found[file.name] = file
    if len(sources) == 1:  # what ``export --card`` writes beside a file
        beside = {CARD: f"{sources[0].name}.README.md", RECIPE: f"{sources[0].name}.recipe.json"}
        there = {name: sources[0].with_name(file) for name, file in beside.items()}
        found |= {name: file for name, file in there.items() if file.is_file()}
    yield Progress("checksums", 1, 1)
    return found


def _of_folder(folder: Path) -> Generator[Progress, None, Files]:
    files = _listed(folder)
    if MANIFEST in files:
        promised = _promised(folder)
        _refuse(files.keys() - promised.keys() - {MANIFEST})
        yield from _check(files, promised)
    elif is_compressed(folder):
        promised = read_recipe(folder).sha256
        _refuse(files.keys() - promised.keys() - {RECIPE, CARD})
        yield from _check(files, promised)
    elif CONFIG not in files or not _is_ours(folder):
        raise CheckpointError("push_no_export", path=folder)
    else:
        _refuse({name for name in files if not _is_of_program(name)})
    yield Progress("checksums", 1, 1)
    return files


def _refuse(strange: Set[str]) -> None:
    """Raise CheckpointError, by name, where a folder has files that the export did not write."""
    if strange:
        raise CheckpointError("push_strange_file", file=min(strange)[:120])


def _is_of_program(name: str) -> bool:
    """Return whether a folder for one program can have a file of this path: its weights, or what goes along."""
    return name in OF_PROGRAMS or ("/" not in name and is_wanted(name))


def _listed(folder: Path) -> dict[str, Path]:
    """Return every file of a folder that is not hidden, by its path there. Raises CheckpointError for a link."""
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted([*folders, *names]):
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.is_symlink():
                raise CheckpointError("push_link", file=path.relative_to(folder).as_posix()[:120])
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path
            if len(found) > MAX_FILES:
                raise CheckpointError("push_no_export", path=folder)
    return found


def _promised(folder: Path) -> dict[str, str]:
    """Return path -> checksum of a manifest."""
    said = read_json(folder / MANIFEST)
    facts: Any = said.get("files")
    if said.get("format") != FORMAT or not isinstance(facts, dict):
        raise CheckpointError("push_no_export", path=folder)
    return {name: str(fact.get("sha256")) if isinstance(fact, dict) else "" for name, fact in facts.items()}


def _check(files: Files, promised: Mapping[str, str]) -> Generator[Progress, None, None]:
    """Compare files with the checksums that they were written with. Raises CheckpointError."""
    for name in promised:
        if name not in files:
            raise CheckpointError("missing_file", file=name[:80])
    total, done = sum(files[name].stat().st_size for name in promised), 0
    for name, checksum in promised.items():
        found = hashlib.sha256()
        with files[name].open("rb", buffering=0) as stream:
            while piece := stream.read(PIECE):
                found.update(piece)
                done += len(piece)
                yield Progress.of_bytes("checksums", done, max(total, done))
        if found.hexdigest() != checksum:
            raise CheckpointError("push_damaged", file=name[:80])


def _is_ours(folder: Path) -> bool:
    """Return whether a folder's card is one that an export has."""
    try:
        with (folder / CARD).open(encoding="utf-8", errors="replace") as card:
            words = card.read(MAX_CARD)
        head = words.split("---\n")[1] if words.startswith("---\n") else ""
        facts = yaml.safe_load(head)
    except (OSError, yaml.YAMLError, IndexError):
        return False
    return isinstance(facts, dict) and isinstance(facts.get("tags"), list) and TAG in facts["tags"]


def _beginning(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(len(MAGIC))
