"""A model's files: its layer map from headers, its tensors a few rows at a time. Knows nothing of schemes or plans."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.base.errors import CheckpointError
from studio.checkpoint import model_facts, stored_as
from studio.checkpoint.card_facts import facts_of, languages_of
from studio.checkpoint.file_names import CARD, CONFIG
from studio.checkpoint.headers import TensorEntry, read_header
from studio.checkpoint.json_file import read_json as read_json
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.left_out import LeftOut, left_out
from studio.checkpoint.license import UNKNOWN, License
from studio.checkpoint.packed.formats import with_packed
from studio.checkpoint.stored_as import OfType, StoredAs
from studio.checkpoint.weight_files import joined, listed, no_weights, weight_files

if TYPE_CHECKING:  # what brings torch, or the Hub's client
    import torch
    from torch import Tensor

    from studio.checkpoint.byte_ranges import ByteRanges
    from studio.checkpoint.hub import Repository
    from studio.checkpoint.tensor_reader import TensorReader

FINGERPRINT_BYTES = 1 << 20
PIECE_WEIGHTS = 1 << 22
"""Weights read at once where all are wanted."""


@dataclass(frozen=True)
class Checkpoint:
    """One model at one revision; ``folder`` is None while only its headers are known."""

    name: str
    """As the user named it: ``builtin``, a Hub id, or a path."""
    revision: str
    """A commit of the Hub, or a fingerprint of the local files."""
    architecture: str
    source_format: str
    """What the weights came as: ``"BF16"``, ``"Q4_1/Q8_0"``."""
    source_bytes: int
    entries: Mapping[str, TensorEntry]
    layers: tuple[Layer, ...]
    folder: Path | None
    can_chat: bool = True
    """Whether it writes text; False for an encoder, with a decoder or without."""
    part: str = ""
    """``"text"`` where the model also sees or hears: only its text part is taken, as a language model of its own."""
    base_model: str = ""
    """Its id on the Hub, where it has one: what an export is said to be made from."""
    license: License = UNKNOWN
    languages: tuple[str, ...] = ()
    """What its card says that it writes: ``("en", "zh")``."""
    large_files: Mapping[str, int] = field(default_factory=dict)
    """SHA-256 -> bytes of each large file that fetching it fetches, of a repository on the Hub."""
    was_stored: Mapping[str, StoredAs] = field(default_factory=dict)
    """Parameter -> how it lay in the file that was converted, where one was and says so; else the files are as they
    came."""

    @property
    def weights(self) -> int:
        return sum(layer.numel for layer in self.layers)

    def stored_as(self, layer: Layer) -> StoredAs:
        """Return how a tensor came: the type or scheme that it has in the model's own files, and its bytes there."""
        if layer.name in self.was_stored:
            return self.was_stored[layer.name]
        return stored_as.joined(layer.name, [stored_as.of_entry(name, self.entries) for name in layer.sources])

    @cached_property
    def came_as(self) -> list[OfType]:
        """How all tensors came, by type, that of most bytes first."""
        return stored_as.by_type(map(self.stored_as, self.layers))

    @cached_property
    def came_quantized(self) -> dict[str, StoredAs]:
        """Parameter -> how it came; nothing where all came at 16 bits or more, so that there is nothing to tell."""
        found = {layer.name: self.stored_as(layer) for layer in self.layers}
        return found if any(each.bits < 16 for each in found.values() if each.numel) else {}

    @cached_property
    def left_out(self) -> LeftOut | None:
        """What the files hold beside the model that the studio takes, None where there is nothing."""
        return left_out(self.entries, self.layers)

    @property
    def title(self) -> str:
        """What to call the model where its origin does not matter: ``SmolLM2-135M-Instruct``."""
        if self.name == "builtin" and self.folder is not None:
            return self.folder.name.partition(".")[0]
        return Path(self.name).stem if Path(self.name).suffix == ".gguf" else Path(self.name).name

    @property
    def path(self) -> Path:
        """The folder with the files. Raises CheckpointError while they are not here."""
        if self.folder is None:
            raise CheckpointError("not_downloaded", model=self.name)
        return self.folder

    def read(
        self, layer: Layer, start: int = 0, stop: int | None = None, ranges: "ByteRanges | None" = None
    ) -> "Tensor":
        """Return rows ``start:stop`` of a tensor; of a weight, rows of its [N, K] form, of experts', of [E * N, K].

        ``ranges`` is where the bytes come from, where that is not the folder. The dtype is that of the file, or bf16 or
        fp32 where that is quantized. No more than these rows is held, of transposed experts one more. Raises
        CheckpointError when the file is damaged, and what ``ranges`` raises.
        """
        return self._tensors.read(self.path if ranges is None else ranges, layer, start, stop)

    def read_bytes(self, layer: Layer, start: int, stop: int) -> int:
        """Return how many bytes :meth:`read` reads for rows ``start:stop`` of a weight."""
        return self._tensors.read_bytes(layer, start, stop)

    def rows_at_once(self, layer: Layer) -> int:
        """Return how many rows of a weight are read for as many bytes as one: more than one where the file has them as
        columns, which it takes all rows of a matrix to read."""
        return self._tensors.rows_at_once(layer)

    def stored(self, layer: Layer) -> "Iterator[Tensor]":
        """Yield a tensor as the model's parameter lies in memory, in flat pieces, one after the other."""
        if layer.kind is Kind.OTHER:
            yield self.read(layer).flatten()
            return
        rows, width = layer.matrix
        step = layer.shape[-2] if layer.transposed else max(1, PIECE_WEIGHTS // width)
        for start in range(0, rows, step):
            piece = self.read(layer, start, min(start + step, rows))
            yield (piece.T if layer.transposed else piece).flatten()

    def saved_dtype(self, layer: Layer) -> "torch.dtype":
        """Return the 16-bit dtype this tensor is stored in when it is not compressed."""
        return self._tensors.saved_dtype(layer)

    @property
    def _tensors(self) -> "TensorReader":
        from studio.checkpoint.tensor_reader import TensorReader  # brings torch, which headers do not need

        return TensorReader(self.entries)


def of_repository(repository: "Repository", folder: Path | None = None) -> Checkpoint:
    """Return the checkpoint of a Hub repository, from its headers; ``folder`` is where it was downloaded to."""
    return _checkpoint(
        name=repository.repo,
        revision=repository.sha,
        config=repository.config,
        entries=repository.entries,
        source_format=None,
        source_bytes=sum(entry.nbytes for entry in repository.entries.values()),
        folder=folder,
        ranges=None if folder is not None else _ranges(repository),
        base_model=repository.repo,
        license=repository.license,
        languages=repository.languages,
        large_files={digest: repository.files[name] for name, digest in repository.digests.items()},
    )


def of_folder(
    folder: Path,
    name: str | None = None,
    revision: str | None = None,
    source_format: str | None = None,
    source_bytes: int | None = None,
    was_stored: Mapping[str, StoredAs] | None = None,
) -> Checkpoint:
    """Return the checkpoint of a local folder with config.json and safetensors, from its headers.

    ``revision`` is the commit they are of, where it is known; ``source_format``, ``source_bytes``
    and ``was_stored`` say what the files were made from, if they were. Raises ModelError for a
    folder without safetensors, CheckpointError for files that are missing, cut short or not what they claim.
    """
    names = listed(folder)

    def read(name: str) -> dict[str, Any]:
        return read_json(folder / name)

    files = [folder / name for name in weight_files(names, read)]
    if not files:
        raise no_weights(folder.name, names, read)
    entries = joined(map(read_header, files))
    said = facts_of(folder / CARD)
    return _checkpoint(
        name=name or str(folder),
        revision=revision or fingerprint(files),
        config=read_json(folder / CONFIG),
        entries=entries,
        source_format=source_format,
        source_bytes=source_bytes or sum(file.stat().st_size for file in files),
        folder=folder,
        license=License.of(said),
        languages=languages_of(said),
        was_stored=was_stored,
    )


def _checkpoint(
    *,
    name: str,
    revision: str,
    config: Mapping[str, Any],
    entries: Mapping[str, TensorEntry],
    source_format: str | None,
    source_bytes: int,
    folder: Path | None,
    license: License,
    languages: tuple[str, ...],
    base_model: str = "",
    large_files: Mapping[str, int] | None = None,
    ranges: "Callable[[TensorEntry], bytes] | None" = None,
    was_stored: Mapping[str, StoredAs] | None = None,
) -> Checkpoint:
    entries = with_packed(config, entries, ranges or partial(bytes_in, folder), folder is not None)
    kept = model_facts.file_of(config, entries, revision, folder is not None)
    facts = model_facts.recall(kept, entries)
    if facts is None:
        from studio.checkpoint.inspection import inspect  # brings transformers

        facts = inspect(config, entries, folder)
        model_facts.keep(kept, facts)
    return Checkpoint(
        name,
        revision,
        facts.architecture,
        source_format or facts.source_format,
        source_bytes,
        entries,
        facts.layers,
        folder,
        can_chat=facts.can_chat,
        part=facts.part,
        base_model=base_model,
        license=license,
        languages=languages,
        large_files=large_files or {},
        was_stored=was_stored or {},
    )


def _ranges(repository: "Repository") -> "Callable[[TensorEntry], bytes]":
    """Return what reads a tensor of a repository that is not on this machine."""

    def read(entry: TensorEntry) -> bytes:
        from studio.checkpoint.hub_client import HubRanges

        ranges = HubRanges(repository.repo, repository.sha, login=repository.login)
        return ranges.read_bytes(entry.file, entry.start, entry.nbytes)

    return read


def bytes_in(folder: Path | None, entry: TensorEntry) -> bytes:
    """Return a tensor of a folder's files, a small one."""
    assert folder is not None
    with (folder / entry.file).open("rb") as file:
        file.seek(entry.start)
        return file.read(entry.nbytes)


def fingerprint(files: list[Path]) -> str:
    """Return a short key of local files: their names, sizes, times and beginnings, where a header stands."""
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns, _beginning(file)) for file in files]
    return hashlib.sha256(repr((str(files[0].parent.resolve()), facts)).encode()).hexdigest()[:16]


def _beginning(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.sha256(stream.read(FINGERPRINT_BYTES)).hexdigest()
