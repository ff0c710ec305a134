"""The tensors of a model's files, a few rows at a time, as the model means them. Knows no configs and no schemes."""

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from studio.checkpoint.byte_ranges import ByteRanges, FolderRanges
from studio.checkpoint.headers import TensorEntry
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.source_formats import Files, StoredTensor

SAVED_DTYPE = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.bfloat16, "F64": torch.bfloat16}
"""What a tensor kept at 16 bits is stored as; wider sources, and quantized ones, become bf16, which cannot overflow."""


@dataclass(frozen=True)
class TensorReader:
    """Files whose headers are known."""

    entries: Mapping[str, TensorEntry]

    def read(self, place: Path | ByteRanges, layer: Layer, start: int = 0, stop: int | None = None) -> Tensor:
        """Return what :meth:`Checkpoint.read` says; the bytes come from ``place``, a folder or what answers as one."""
        with FolderRanges(place) if isinstance(place, Path) else nullcontext(place) as ranges:
            files = Files(self.entries, ranges)
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
        tensor, _, rows, across = next(self._matrices(layer))
        return rows if across or tensor.is_read_whole else 1

    def saved_dtype(self, layer: Layer) -> torch.dtype:
        """Return the 16-bit dtype a tensor is stored in when it is not compressed."""
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
            # What is packed is output channels first whatever the model wants; some files have experts the other way.
            is_swapped = len(layer.sources) == 1 and tensor.shape != layer.stored_shape
            across = not tensor.is_output_first and layer.transposed != is_swapped
            high, wide = tensor.shape[-2:]
            for expert in range(math.prod(tensor.shape[:-2])):
                yield tensor, expert, wide if across else high, across
