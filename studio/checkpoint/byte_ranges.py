"""Byte ranges of named files: all that reading a weight asks of the place where it lies. Knows no format."""

import os
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor


class ByteRanges(Protocol):
    """Where files are read from: a folder, and whatever else answers for a range of bytes."""

    def read(self, file: str, start: int, length: int) -> Tensor:
        """Return bytes ``start:start + length`` of ``file``, uint8 [length], in memory of their own.

        Raises OSError where there are none or fewer.
        """
        ...


class FolderRanges:
    """The files of a folder, each open from its first use to the end of the context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[str, FileIO] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._opened.clear()

    def read(self, file: str, start: int, length: int) -> Tensor:
        """Return bytes ``start:start + length`` of ``file``, uint8 [length]. Raises OSError where there are fewer."""
        if file not in self._opened:
            self._opened[file] = self._stack.enter_context((self._folder / file).open("rb", buffering=0))
        opened = self._opened[file]
        # No memory is taken for what the file cannot hold: a damaged one may promise more than there is.
        if start + length > os.fstat(opened.fileno()).st_size:
            raise OSError(f"{file} ends before byte {start + length}")
        found = torch.empty(length, dtype=torch.uint8)
        into = found.numpy().data
        opened.seek(start)
        done = 0
        while done < length:
            count = opened.readinto(into[done:])
            if not count:
                raise OSError(f"{file} ends before byte {start + length}")
            done += count
        return found
