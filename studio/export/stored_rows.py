"""Rows of tensors in a safetensors file, read as they are asked for: not mapped, so that no page of it stays behind.

Knows names, dtypes and places; not what the numbers are for.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from studio.base.dtypes import DTYPE_BYTES
from studio.base.errors import CheckpointError
from studio.checkpoint.headers import TensorEntry
from studio.checkpoint.tensor_writer import TORCH_DTYPES


class StoredRows:
    """A file that is open; use as a context manager."""

    def __init__(self, file: Path, entries: Mapping[str, TensorEntry]) -> None:
        """``entries``: what the file's header says."""
        self._path, self._entries = file, entries

    def __enter__(self) -> Self:
        self._file = self._path.open("rb", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return ``[start:stop]`` of a tensor along its first dimension, in its dtype.

        Raises CheckpointError for a file that ends before, or a dtype that no compressed folder has.
        """
        entry = self._entries[name]
        if entry.dtype not in TORCH_DTYPES:
            raise CheckpointError("damaged_file", file=self._path.name)
        begin, end, _ = slice(start, stop).indices(entry.shape[0] if entry.shape else 1)
        shape = (max(end - begin, 0), *entry.shape[1:]) if entry.shape else ()
        row = math.prod(entry.shape[1:]) * DTYPE_BYTES[entry.dtype]
        raw = torch.empty(math.prod(shape) * DTYPE_BYTES[entry.dtype], dtype=torch.uint8)
        self._file.seek(entry.start + begin * row)
        place = raw.numpy().data
        while place:
            count = self._file.readinto(place)
            if not count:
                raise CheckpointError("damaged_file", file=self._path.name)
            place = place[count:]
        return raw.view(TORCH_DTYPES[entry.dtype]).reshape(shape)
