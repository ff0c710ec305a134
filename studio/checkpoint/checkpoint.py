"""A model's files: its layer map from headers, its tensors a few rows at a time. Knows nothing of schemes or plans."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio.base.errors import CheckpointError
from studio.checkpoint.architecture import layer_map
from studio.checkpoint.byte_ranges import ByteRanges, FolderRanges
from studio.checkpoint.config import Task, has_other_parts, load_config, task
from studio.checkpoint.file_names import CARD, CONFIG
from studio.checkpoint.headers import TensorEntry, read_header
from studio.checkpoint.hub import Repository
from studio.checkpoint.json_file import read_json as read_json
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.license import UNKNOWN, License, of_card
from studio.checkpoint.source_formats import Files, StoredTensor
from studio.checkpoint.weight_files import joined, listed, no_weights, weight_files

FINGERPRINT_BYTES = 1 << 20
PIECE_WEIGHTS = 1 << 22
"""Weights read at once where all are wanted."""

SAVED_DTYPE = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.bfloat16, "F64": torch.bfloat16}
"""What a tensor kept at 16 bits is stored as; wider sources, and quantized ones, become bf16, which cannot overflow."""


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

    @property
    def weights(self) -> int:
        return sum(layer.numel for layer in self.layers)

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

    def read(self, layer: Layer, start: int = 0, stop: int | None = None, ranges: ByteRanges | None = None) -> Tensor:
        """Return rows ``start:stop`` of a tensor; of a weight, rows of its [N, K] form, of experts', of [E * N, K].

        ``ranges`` is where the bytes come from, where that is not the folder. The dtype is that of the file, or bf16 or
        fp32 where that is quantized. No more than these rows is held, of transposed experts one more. Raises
        CheckpointError when the file is damaged, and what ``ranges`` raises.
        """
        with FolderRanges(self.path) if ranges is None else nullcontext(ranges) as place:
            files = Files(self.entries, place)
            if layer.kind is Kind.OTHER:
                parts = [StoredTensor(name, self.entries).whole(files) for name in layer.sources]
                whole = parts[0] if len(parts) == 1 else torch.cat(parts)
                return whole.reshape(layer.shape)[slice(start, stop) if layer.shape else ...]
            pieces = [
                (tensor.columns if across else tensor.rows)(files, expert, first, last)
                for tensor, expert, first, last, across in self._parts(layer, start, stop)
            ]
            return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def read_bytes(self, layer: Layer, start: int, stop: int) -> int:
        """Return how many bytes :meth:`read` reads for rows ``start:stop`` of a weight."""
        return sum(
            tensor.read_bytes(expert, *((0, tensor.shape[-2]) if across else (first, last)))
            for tensor, expert, first, last, across in self._parts(layer, start, stop)
        )

    def rows_at_once(self, layer: Layer) -> int:
        """Return how many rows of a weight are read for as many bytes as one: more than one where the file has them as
        columns, which it takes all rows of a matrix to read."""
        _, _, rows, across = next(self._matrices(layer))
        return rows if across else 1

    def stored(self, layer: Layer) -> Iterator[Tensor]:
        """Yield a tensor as the model's parameter lies in memory, in flat pieces, one after the other."""
        if layer.kind is Kind.OTHER:
            yield self.read(layer).flatten()
            return
        rows, width = layer.matrix
        step = layer.shape[-2] if layer.transposed else max(1, PIECE_WEIGHTS // width)
        for start in range(0, rows, step):
            piece = self.read(layer, start, min(start + step, rows))
            yield (piece.T if layer.transposed else piece).flatten()

    def saved_dtype(self, layer: Layer) -> torch.dtype:
        """Return the 16-bit dtype this tensor is stored in when it is not compressed."""
        return SAVED_DTYPE.get(self.entries[layer.source].dtype, torch.bfloat16)

    def _parts(self, layer: Layer, start: int, stop: int | None) -> Iterator[tuple[StoredTensor, int, int, int, bool]]:
        """Yield what rows ``start:stop`` of a weight consist of: a tensor of the file, which of its experts, from which
        row of that to which, and whether these are its columns there."""
        before = 0
        stop = layer.matrix[0] if stop is None else stop
        for tensor, expert, rows, across in self._matrices(layer):
            first, last = max(start - before, 0), min(stop - before, rows)
            if first < last:
                yield tensor, expert, first, last, across
            before += rows

    def _matrices(self, layer: Layer) -> Iterator[tuple[StoredTensor, int, int, bool]]:
        """Yield every matrix of the file that a weight is made of: its tensor, which expert's it is, how many rows it
        gives, and whether these are its columns there."""
        for name in layer.sources:
            tensor = StoredTensor(name, self.entries)
            # MXFP4 is output channels first whatever the model wants; some files have experts the other way round.
            is_swapped = len(layer.sources) == 1 and tensor.shape != layer.stored_shape
            across = not tensor.is_mxfp4 and layer.transposed != is_swapped
            high, wide = tensor.shape[-2:]
            for expert in range(math.prod(tensor.shape[:-2])):
                yield tensor, expert, wide if across else high, across


def of_repository(repository: Repository, folder: Path | None = None) -> Checkpoint:
    """Return the checkpoint of a Hub repository, from its headers; ``folder`` is where it was downloaded to."""
    return _checkpoint(
        name=repository.repo,
        revision=repository.sha,
        config=repository.config,
        entries=repository.entries,
        source_format=None,
        source_bytes=sum(entry.nbytes for entry in repository.entries.values()),
        folder=folder,
        base_model=repository.repo,
        license=repository.license,
    )


def of_folder(
    folder: Path,
    name: str | None = None,
    revision: str | None = None,
    source_format: str | None = None,
    source_bytes: int | None = None,
) -> Checkpoint:
    """Return the checkpoint of a local folder with config.json and safetensors, from its headers.

    ``revision`` is the commit they are of, where it is known; ``source_format`` and ``source_bytes`` say what the files
    were made from, if they were. Raises ModelError for a
    folder without safetensors, CheckpointError for files that are missing, cut short or not what they claim.
    """
    names = listed(folder)

    def read(name: str) -> dict[str, Any]:
        return read_json(folder / name)

    files = [folder / name for name in weight_files(names, read)]
    if not files:
        raise no_weights(folder.name, names, read)
    entries = joined(map(read_header, files))
    return _checkpoint(
        name=name or str(folder),
        revision=revision or fingerprint(files),
        config=read_json(folder / CONFIG),
        entries=entries,
        source_format=source_format,
        source_bytes=source_bytes or sum(file.stat().st_size for file in files),
        folder=folder,
        license=of_card(folder / CARD),
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
    base_model: str = "",
) -> Checkpoint:
    model = load_config(config)
    layers = layer_map(model, entries, None if folder is None else partial(_differ, folder, entries))
    return Checkpoint(
        name,
        revision,
        model.model_type,
        source_format or _dtypes(entries, layers),
        source_bytes,
        entries,
        layers,
        folder,
        can_chat=task(model) is Task.DECODER,
        part="text" if has_other_parts(config) else "",
        base_model=base_model,
        license=license,
    )


def _differ(folder: Path, entries: Mapping[str, TensorEntry], one: str, other: str) -> bool:
    """Return whether two tensors begin or end differently: a head that is trained apart does so in its first rows."""
    first, second = entries[one], entries[other]
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return True
    length = min(first.nbytes, FINGERPRINT_BYTES)
    with FolderRanges(folder) as ranges:
        return any(
            not torch.equal(*(ranges.read(each.file, each.start + start, length) for each in (first, second)))
            for start in (0, first.nbytes - length)
        )


def fingerprint(files: list[Path]) -> str:
    """Return a short key of local files: their names, sizes, times and beginnings, where a header stands."""
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns, _beginning(file)) for file in files]
    return hashlib.sha256(repr((str(files[0].parent.resolve()), facts)).encode()).hexdigest()[:16]


def _beginning(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.sha256(stream.read(FINGERPRINT_BYTES)).hexdigest()


def _dtypes(entries: Mapping[str, TensorEntry], layers: tuple[Layer, ...]) -> str:
    """Return the formats of the weights, the one with most bytes first: ``"BF16"``, ``"MXFP4/BF16"``."""
    sums: dict[str, int] = defaultdict(int)
    for layer in layers:
        for name in layer.sources:
            sums[StoredTensor(name, entries).format] += entries[name].nbytes
    return "/".join(sorted(sums, key=lambda name: -sums[name]))
